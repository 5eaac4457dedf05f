"""What every Kubernetes object has in common.

Types are `msgspec` structs: field names are the camelCase of the Kubernetes API on the wire, unknown fields are
ignored when decoding core objects (we model only what the mesh reads) and refused in the mesh's own resources.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

IntOrString = int | str
"""A number, or a name that stands for one: `intstr.IntOrString` of the Kubernetes API."""


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all parts of Kubernetes objects."""


class StrictModel(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the mesh's own resources: a field we do not know is an error, not a silent no-op."""


class OwnerReference(Model, frozen=True, kw_only=True):
    """metadata.ownerReferences[]: the controller that made this object."""

    api_version: str = ""
    kind: str
    name: str
    uid: str = ""
    controller: bool = False


class ObjectReference(Model, frozen=True, kw_only=True):
    """Another object: of an event, or behind an address."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class ObjectMeta(Model, frozen=True, kw_only=True):
    """metadata. `creation_timestamp` is RFC 3339; empty until the object is stored."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []


class Object(Model, frozen=True, kw_only=True):
    """A Kubernetes object. Subclasses fix `API_VERSION`, `KIND`, `PLURAL` and `NAMESPACED`."""

    API_VERSION: ClassVar[str] = ""
    KIND: ClassVar[str] = ""
    PLURAL: ClassVar[str] = ""
    NAMESPACED: ClassVar[bool] = True

    metadata: ObjectMeta

    @property
    def key(self) -> ObjectKey:
        """Identity of the object inside one cluster."""
        return ObjectKey(self.KIND, self.metadata.namespace, self.metadata.name)


class StrictObject(Object, frozen=True, kw_only=True):
    """Base of the mesh's own kinds, whose parts are `StrictModel`s.

    Manifests refuse top-level fields these do not know; here that cannot be said, as decoding meets `status` too.
    """


class ObjectKey(msgspec.Struct, frozen=True, order=True):
    """(kind, namespace, name); namespace is "" for cluster-scoped objects."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"
