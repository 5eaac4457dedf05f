"""The kinds of objects that the mesh knows, by API version and by the names `kubectl` gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .cluster import Event, Namespace, Node, ServiceAccount
from .config import ConfigMap, Secret
from .decoding import decode_as, without_nulls
from .errors import FieldError, step
from .meta import Object, StrictObject
from .nsm import CircuitBreaker, MeshConfig, MeshConfigClass, RateLimit
from .pods import Pod
from .services import Endpoints, EndpointSlice, Service
from .smi import HTTPRouteGroup, TCPRoute, TrafficSplit, TrafficTarget
from .workloads import (
    ControllerRevision,
    CronJob,
    DaemonSet,
    Deployment,
    Job,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
)

_RATE_LIMIT_V1ALPHA1 = ("specs.smi.nginx.com/v1alpha1", "RateLimit")
_SHORT_NAMES: dict[type[Object], tuple[str, ...]] = {
    Namespace: ("ns",),
    ServiceAccount: ("sa",),
    Pod: ("po",),
    Service: ("svc",),
    EndpointSlice: (),
    ConfigMap: ("cm",),
    Secret: (),
    Deployment: ("deploy",),
    ReplicaSet: ("rs",),
    StatefulSet: ("sts",),
    DaemonSet: ("ds",),
    ReplicationController: ("rc",),
    Job: (),
    TrafficTarget: ("tt",),
    HTTPRouteGroup: ("htr",),
    TCPRoute: ("tr",),
    TrafficSplit: ("ts",),
    RateLimit: ("rl",),
    CircuitBreaker: ("cb",),
    MeshConfig: (),
    MeshConfigClass: (),
}

KINDS: dict[tuple[str, str], type[Object]] = {
    **{(type_.API_VERSION, type_.KIND): type_ for type_ in _SHORT_NAMES},
    _RATE_LIMIT_V1ALPHA1: RateLimit,
}
"""Types of the objects that the mesh takes in manifests and serves, by (apiVersion, kind)."""

CLUSTER_KINDS: dict[tuple[str, str], type[Object]] = {
    **KINDS,
    **{(type_.API_VERSION, type_.KIND): type_ for type_ in (Endpoints, Node, Event, CronJob, ControllerRevision)},
}
"""Types of all objects that are read from an API server, those that only a cluster has included."""

_BY_NAME: dict[str, type[Object]] = {
    name: type_
    for type_, short in _SHORT_NAMES.items()
    for name in (
        type_.KIND.lower(),
        type_.PLURAL,
        f"{type_.PLURAL}.{type_.API_VERSION.rpartition('/')[0]}".rstrip("."),
        *short,
    )
}


def lookup(name: str) -> type[Object] | None:
    """The type that `kubectl` means by a resource's name: plural, singular, short or `plural.group`, in any case."""
    return _BY_NAME.get(name.lower())


def by_kind(kind: str) -> type[Object] | None:
    """The type of this `kind`, whichever its API version."""
    return next((type_ for type_ in _SHORT_NAMES if kind == type_.KIND), None)


def decode(raw: Any, known: Mapping[tuple[str, str], type[Object]] = KINDS) -> Object:
    """The typed object, which must be of one of the `known` kinds. Raises FieldError."""
    if not isinstance(raw, dict):
        raise FieldError("", "is not an object: it must be a mapping with apiVersion and kind")
    for field in ("apiVersion", "kind"):
        if not raw.get(field):
            raise FieldError(field, "is required")
        if not isinstance(raw[field], str):
            raise FieldError(field, "must be a string")
    version = (raw["apiVersion"], raw["kind"])
    type_ = known.get(version)
    if type_ is None:
        raise _unknown(*version, known)
    if issubclass(type_, StrictObject):
        for field in raw.keys() - {"apiVersion", "kind", "status", *type_.__struct_encode_fields__}:
            raise FieldError(step(field), "unknown field; known are metadata and spec")
    spec = raw.get("spec")
    if version == _RATE_LIMIT_V1ALPHA1 and isinstance(spec, dict) and spec.get("rules"):
        raise FieldError("spec.rules", "unknown field; it came with apiVersion specs.smi.nginx.com/v1alpha2")
    return decode_as(type_, without_nulls(raw))


def as_stored(raw: dict[str, Any]) -> dict[str, Any]:
    """An object that `decode` takes, in the version of its kind that is stored."""
    return {**raw, "apiVersion": KINDS[raw["apiVersion"], raw["kind"]].API_VERSION}


def to_dict(obj: Object) -> dict[str, Any]:
    """The object as JSON has it, without fields that have their default."""
    return {"apiVersion": obj.API_VERSION, "kind": obj.KIND, **msgspec.to_builtins(obj)}


def _unknown(api_version: str, kind: str, known: Iterable[tuple[str, str]]) -> FieldError:
    versions = [version for version, its_kind in known if its_kind == kind]
    if versions:
        return FieldError("apiVersion", f'"{api_version}" has no {kind}; it is in {" and ".join(versions)}')
    return FieldError("kind", f'unknown kind "{kind}" of apiVersion "{api_version}"')
