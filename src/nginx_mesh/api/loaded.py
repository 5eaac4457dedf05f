"""An object of a manifest, and what may be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import FieldError, one_line
from .meta import Object


@dataclass(frozen=True, slots=True)
class ManifestError:
    """What is wrong with one object of one file. `object` is "Kind namespace/name" as far as that is known."""

    file: str
    document: int
    object: str
    field: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.file} document {self.document}"
        return ": ".join(one_line(part) for part in (where, self.object, self.field, self.reason) if part)


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """An object, typed and as it was written (nulls left out, namespace filled in), and where it came from."""

    object: Object
    raw: dict[str, Any]
    file: str
    document: int

    @property
    def source(self) -> str:
        """ "FILE document N"."""
        return f"{self.file} document {self.document}"

    def error(self, error: FieldError) -> ManifestError:
        """What is wrong with a field of this object."""
        return ManifestError(self.file, self.document, str(self.object.key), error.field, error.reason)


def described(value: Any) -> str:
    """ "Kind namespace/name" of something that may not be an object at all."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return ""
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    names = [part for part in (metadata.get("namespace"), metadata.get("name")) if isinstance(part, str)]
    return " ".join(part for part in (value["kind"], "/".join(names)) if part)
