"""Manifests: files of Kubernetes objects, as YAML or JSON, read without trust.

What is sound comes out as typed objects; what is not, as errors that name file, document, object, field and reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from .decoding import without_nulls
from .documents import read
from .errors import FieldError
from .kinds import decode
from .listing import with_implied_kind
from .loaded import LoadedObject as LoadedObject
from .loaded import ManifestError as ManifestError
from .loaded import described
from .validate import validate

MAX_OBJECTS = 5000


@dataclass(frozen=True, slots=True)
class Manifest:
    """Objects of a file in its order, and what is wrong with those that are not among them."""

    objects: list[LoadedObject] = field(default_factory=list)
    errors: list[ManifestError] = field(default_factory=list)


class _Item(NamedTuple):
    value: Any
    error: FieldError | None = None


def load(data: bytes, source: str, *, namespace: str = "default") -> Manifest:
    """Read a manifest; `source` names the file in errors. Never raises.

    Objects of namespaced kinds that name no namespace go to `namespace`.
    """
    manifest = Manifest()
    count = 0
    for document in read(data):
        items = [_Item(None, document.error)] if document.error is not None else _flatten(document.value)
        for item in items:
            count += 1
            if count > MAX_OBJECTS:
                reason = f"there are more than {MAX_OBJECTS} objects"
                manifest.errors.append(ManifestError(source, document.number, "", "", reason))
                return manifest
            if item.error is not None:
                manifest.errors.append(ManifestError(source, document.number, "", item.error.field, item.error.reason))
                continue
            loaded = _load_object(item.value, source, document.number, namespace)
            if isinstance(loaded, LoadedObject):
                manifest.objects.append(loaded)
            else:
                manifest.errors.extend(loaded)
    return manifest


def _load_object(value: Any, file: str, document: int, namespace: str) -> LoadedObject | list[ManifestError]:
    try:
        obj = decode(value)
    except FieldError as error:
        return [ManifestError(file, document, described(value), error.field, error.reason)]
    raw = without_nulls(value)
    if obj.NAMESPACED and not obj.metadata.namespace:
        raw["metadata"]["namespace"] = namespace
        obj = msgspec.structs.replace(obj, metadata=msgspec.structs.replace(obj.metadata, namespace=namespace))
    loaded = LoadedObject(obj, raw, file, document)
    return [loaded.error(error) for error in validate(obj)] or loaded


def _flatten(value: Any) -> Iterator[_Item]:
    """The items of lists, of `kind: List` and of lists of one kind; what is no list is itself."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or "items" not in value:
        yield _Item(value)
        return
    items = value["items"]
    if items is not None and not isinstance(items, list):
        yield _Item(None, FieldError("items", "must be a list"))
        return
    for item in items or ():
        yield from _flatten(with_implied_kind(item, value) if isinstance(item, dict) else item)
