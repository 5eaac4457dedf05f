"""What every object has: name, namespace, labels, annotations."""

from __future__ import annotations

from ..errors import FieldError, join, step
from ..meta import Object, ObjectMeta
from ..names import label_name, qualified_key, subdomain_name
from .checks import Errors, labels, must

_MAX_ANNOTATIONS = 256 << 10
_NAMED_BY_LABEL = ("Namespace", "Service")


def metadata(obj: Object) -> Errors:
    """An object's metadata."""
    meta = obj.metadata
    check = label_name if obj.KIND in _NAMED_BY_LABEL else subdomain_name
    yield from must("name", check(meta.name))
    if meta.namespace and not obj.NAMESPACED:
        yield FieldError("namespace", f"a {obj.KIND} is in no namespace")
    elif meta.namespace:
        yield from must("namespace", label_name(meta.namespace))
    yield from labels("labels", meta.labels)
    yield from annotation_keys(meta)


def annotation_keys(meta: ObjectMeta) -> Errors:
    """Keys of annotations, and their size together."""
    for key in meta.annotations:
        yield from must(join("annotations", step(key)), qualified_key(key.lower()))
    if sum(len(key) + len(value) for key, value in meta.annotations.items()) > _MAX_ANNOTATIONS:
        yield FieldError("annotations", "are larger than 256 KiB together")
