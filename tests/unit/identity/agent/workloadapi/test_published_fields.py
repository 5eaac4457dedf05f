from spiffe._proto import workload_pb2 as public

from nginx_mesh.identity.agent.workloadapi import workload_pb2 as ours


def test_messages_are_on_the_wire_what_others_have_them_be() -> None:
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        other = public.DESCRIPTOR.message_types_by_name[name]
        assert describe(message) == describe(other), name


def describe(message: object) -> list[tuple[object, ...]]:
    fields = message.fields  # type: ignore[attr-defined]
    return [(f.name, f.number, f.type, f.is_repeated, describe_entry(f.message_type)) for f in fields]


def describe_entry(message: object) -> object:
    """The parts of a map's entries; of other messages the name."""
    if message is None:
        return None
    if message.GetOptions().map_entry:  # type: ignore[attr-defined]
        return describe(message)
    return message.name  # type: ignore[attr-defined]
