"""Rules for the mesh's labels and annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nginx_mesh.api.annotations import (
    AUTO_INJECT,
    CLIENT_MAX_BODY_SIZE,
    DEFAULT_EGRESS_ALLOWED,
    ENABLE_EGRESS,
    ENABLE_INGRESS,
    IGNORE_INCOMING_PORTS,
    IGNORE_OUTGOING_PORTS,
    INTERNAL_ROUTE,
    LB_METHOD,
    MTLS_MODE,
    PEER_SPIFFE_ID,
    PROBES,
    STATUS,
)
from nginx_mesh.api.cluster import Namespace
from nginx_mesh.api.meta import Object, ObjectMeta
from nginx_mesh.api.owners import OWNER_KINDS
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service

from .describedmesh import DescribedMesh, template_of
from .rules import MISPLACED_METADATA, NOT_STRICT, OVERRULED_MODE, UNKNOWN_METADATA, Findings

_PREFIXES = ("nsm.nginx.com/", "config.nsm.nginx.com/", "injector.nsm.nginx.com/")
_INGRESS = "Ingress"
_LABELS = {
    AUTO_INJECT: (Namespace.KIND, Pod.KIND),
    ENABLE_INGRESS: (Pod.KIND,),
    ENABLE_EGRESS: (Pod.KIND,),
}
_ANNOTATIONS = {
    MTLS_MODE: (Pod.KIND,),
    CLIENT_MAX_BODY_SIZE: (Pod.KIND,),
    IGNORE_INCOMING_PORTS: (Pod.KIND,),
    IGNORE_OUTGOING_PORTS: (Pod.KIND,),
    DEFAULT_EGRESS_ALLOWED: (Pod.KIND,),
    LB_METHOD: (Service.KIND,),
    PEER_SPIFFE_ID: (Service.KIND,),
    INTERNAL_ROUTE: (_INGRESS,),
}
# Annotations that injection writes on pods.
_INJECTED = {STATUS, PROBES}


def labels_and_annotations(mesh: DescribedMesh) -> Findings:
    """Findings about labels and annotations."""
    for obj in mesh.objects:
        for path, kind, metadata in _metadata(obj):
            for place, known, other, values in (
                ("labels", _LABELS, _ANNOTATIONS, metadata.labels),
                ("annotations", _ANNOTATIONS, _LABELS, metadata.annotations),
            ):
                yield from _keys(obj, f"{path}.{place}", kind, known, other, values)
            mode = metadata.annotations.get(MTLS_MODE)
            if kind == Pod.KIND and mode in ("off", "permissive"):
                field = f"{path}.annotations[{MTLS_MODE}]"
                if mesh.settings.mtls_mode == "strict":
                    yield OVERRULED_MODE.at(obj.key, field, f'"{mode}" is ignored: the MeshConfig says strict')
                else:
                    yield NOT_STRICT.at(obj.key, field, f'"{mode}" lets callers in that prove no identity')


def _metadata(obj: Object) -> Iterator[tuple[str, str, ObjectMeta]]:
    """(path, kind, metadata) of an object, and of its pod template with the kind Pod."""
    yield "metadata", obj.KIND, obj.metadata
    template = template_of(obj)
    if template is not None:
        yield "spec.template.metadata", Pod.KIND, template.metadata


def _keys(
    obj: Object,
    path: str,
    kind: str,
    known: Mapping[str, tuple[str, ...]],
    elsewhere: Mapping[str, tuple[str, ...]],
    values: Mapping[str, str],
) -> Findings:
    for name in values:
        if not name.startswith(_PREFIXES) or name in _INJECTED or name.partition("/")[2] in OWNER_KINDS:
            continue
        field = f"{path}[{name}]"
        kinds = known.get(name)
        if kinds is None and name in elsewhere:
            wanted = "an annotation" if known is _LABELS else "a label"
            yield MISPLACED_METADATA.at(obj.key, field, f"is {wanted} of a {' or '.join(elsewhere[name])}")
        elif kinds is None:
            yield UNKNOWN_METADATA.at(obj.key, field, "is unknown")
        elif kind not in kinds:
            yield MISPLACED_METADATA.at(obj.key, field, f"is read on a {' or '.join(kinds)}, not on a {kind}")
