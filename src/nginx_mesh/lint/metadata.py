"""The mesh's labels and annotations, and its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nginx_mesh.api import annotations as mesh
from nginx_mesh.api.core import Namespace, Pod, Service
from nginx_mesh.api.meta import Object, ObjectMeta
from nginx_mesh.api.nsm import MeshConfig

from .rules import ALLOWS_ALL, MISPLACED_MARK, NOT_STRICT, OVERRULED_MODE, UNKNOWN_MARK, Findings
from .world import World, template_of

_PREFIXES = ("nsm.nginx.com/", "config.nsm.nginx.com/", "injector.nsm.nginx.com/")
_INGRESS = "Ingress"
_LABELS = {
    mesh.AUTO_INJECT: (Namespace.KIND, Pod.KIND),
    mesh.ENABLE_INGRESS: (Pod.KIND,),
    mesh.ENABLE_EGRESS: (Pod.KIND,),
}
_ANNOTATIONS = {
    mesh.MTLS_MODE: (Pod.KIND,),
    mesh.CLIENT_MAX_BODY_SIZE: (Pod.KIND,),
    mesh.IGNORE_INCOMING_PORTS: (Pod.KIND,),
    mesh.IGNORE_OUTGOING_PORTS: (Pod.KIND,),
    mesh.DEFAULT_EGRESS_ALLOWED: (Pod.KIND,),
    mesh.LB_METHOD: (Service.KIND,),
    mesh.PEER_SPIFFE_ID: (Service.KIND,),
    mesh.INTERNAL_ROUTE: (_INGRESS,),
}
# What injection writes, on pods.
_INJECTED = {mesh.STATUS, mesh.PROBES}
_OWNERS = ("deployment", "daemonset", "statefulset", "replicaset", "replicationcontroller", "job")


def labels_and_annotations(world: World) -> Findings:
    """Of labels and annotations."""
    for obj in world.objects:
        for path, kind, metadata in _parts(obj):
            for place, known, other, values in (
                ("labels", _LABELS, _ANNOTATIONS, metadata.labels),
                ("annotations", _ANNOTATIONS, _LABELS, metadata.annotations),
            ):
                yield from _marks(obj, f"{path}.{place}", kind, known, other, values)
            mode = metadata.annotations.get(mesh.MTLS_MODE)
            if kind == Pod.KIND and mode in ("off", "permissive"):
                field = f"{path}.annotations[{mesh.MTLS_MODE}]"
                if world.settings.mtls_mode == "strict":
                    yield OVERRULED_MODE.at(obj.key, field, f'"{mode}" is ignored: the MeshConfig says strict')
                else:
                    yield NOT_STRICT.at(obj.key, field, f'"{mode}" lets callers in that prove no identity')


def settings(world: World) -> Findings:
    """Of MeshConfigs: what is fit for a start, and not for production."""
    for config in world.of(MeshConfig):
        mode, access = config.spec.mtls.mode, config.spec.access_control_mode
        if mode in ("off", "permissive"):
            yield NOT_STRICT.at(config.key, "spec.mtls.mode", f'"{mode}" lets callers in that prove no identity')
        if access == "allow":
            message = '"allow" lets everybody call what no TrafficTarget protects'
            yield ALLOWS_ALL.at(config.key, "spec.accessControlMode", message)


def _parts(obj: Object) -> Iterator[tuple[str, str, ObjectMeta]]:
    """Where an object has labels and annotations, and what kind of thing they are on."""
    yield "metadata", obj.KIND, obj.metadata
    template = template_of(obj)
    if template is not None:
        yield "spec.template.metadata", Pod.KIND, template.metadata


def _marks(
    obj: Object,
    path: str,
    kind: str,
    known: Mapping[str, tuple[str, ...]],
    elsewhere: Mapping[str, tuple[str, ...]],
    values: Mapping[str, str],
) -> Findings:
    for name in values:
        if not name.startswith(_PREFIXES) or name in _INJECTED or name.partition("/")[2] in _OWNERS:
            continue
        field = f"{path}[{name}]"
        kinds = known.get(name)
        if kinds is None and name in elsewhere:
            wanted = "an annotation" if known is _LABELS else "a label"
            yield MISPLACED_MARK.at(obj.key, field, f"is {wanted} of a {' or '.join(elsewhere[name])}")
        elif kinds is None:
            yield UNKNOWN_MARK.at(obj.key, field, "is unknown")
        elif kind not in kinds:
            yield MISPLACED_MARK.at(obj.key, field, f"is read on a {' or '.join(kinds)}, not on a {kind}")
