"""How `kubectl` and the API's paths name kinds: the part of API discovery that a mesh needs."""

from __future__ import annotations

from . import kinds
from .cluster import Event
from .meta import Object


def find(name: str) -> type[Object] | None:
    """The kind with this resource name: plural, singular or short, with or without `.group`, in any case."""
    simple, _, group = name.lower().partition(".")
    # Events are made by the mesh only: no manifest holds them.
    kind = Event if simple in ("event", "events", "ev") else kinds.lookup(simple)
    if kind is None or not f"{_group(kind)}.".startswith(f"{group}." if group else ""):
        return None
    return kind


def by_kind(kind: str) -> type[Object]:
    """The kind called this. Raises KeyError."""
    found = Event if kind == Event.KIND else kinds.by_kind(kind)
    if found is None:
        raise KeyError(kind)
    return found


def title(kind: type[Object]) -> str:
    """`deployment.apps`, `pod`: a kind in kubectl's output."""
    return ".".join(filter(None, (kind.KIND.lower(), _group(kind))))


def path(kind: type[Object]) -> str:
    """`/apis/apps/v1`, `/api/v1`: where the API has objects of this kind."""
    return f"/apis/{kind.API_VERSION}" if "/" in kind.API_VERSION else f"/api/{kind.API_VERSION}"


def _group(kind: type[Object]) -> str:
    return kind.API_VERSION.rpartition("/")[0]
