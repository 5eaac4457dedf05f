import subprocess
import sys
from pathlib import Path

from spiffe._proto import workload_pb2 as public

from nginx_mesh.identity.agent.workloadapi import workload_pb2 as ours

SOURCE = Path(__file__).parents[5] / "src"
PROTO = "nginx_mesh/identity/agent/workloadapi/workload.proto"


def test_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    options = ["-I", str(SOURCE), f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, PROTO], check=True, cwd=SOURCE, timeout=60)
    for suffix in ("_pb2.py", "_pb2.pyi"):
        name = PROTO.replace(".proto", suffix)
        assert (tmp_path / name).read_text() == (SOURCE / name).read_text(), f"{name}: run `make proto`"


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
