"""What an API server answers to list and watch requests, as far as a reader that follows objects acts on it.

Objects stay as they came: `kinds.decode` says what is in them. The values to decode are those of `documents.read`,
which bounds what a server may send.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .decoding import decode_as, without_nulls
from .errors import FieldError, located
from .meta import Model, ObjectMeta
from .resource import Resource

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class ListMeta(Model, frozen=True, kw_only=True):
    """metadata of a list. `continue_` is the token of the next page, empty on the last one.

    A watch can begin at `resource_version`. `remaining_item_count` is how many objects follow this page, if known.
    """

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")
    remaining_item_count: int | None = None


class ListPage(Model, frozen=True, kw_only=True):
    """A list, or one page of it. Every item has its apiVersion and kind."""

    metadata: ListMeta = ListMeta()
    items: list[Resource] = []


class Status(Model, frozen=True, kw_only=True):
    """metav1.Status: why a request failed. `code` is that of HTTP: 410 when a resource version is too old."""

    code: int = 0
    reason: str = ""
    message: str = ""


class WatchEvent(Model, frozen=True, kw_only=True):
    """One event of a watch, and the object as it is now; of DELETED, as it was last; of BOOKMARK, just its metadata.

    The object of an ERROR is a `Status`, with which the watch has ended.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Resource

    @property
    def metadata(self) -> ObjectMeta:
        """The object's metadata. Raises FieldError."""
        with located("object.metadata"):
            found = self.object.get("metadata")
            return ObjectMeta() if found is None else decode_as(ObjectMeta, without_nulls(found))

    @property
    def ends_initial_events(self) -> bool:
        """Whether everything that there was when the watch began has been told. Raises FieldError."""
        return self.type == "BOOKMARK" and self.metadata.annotations.get(_INITIAL_EVENTS_END) == "true"

    @property
    def status(self) -> Status:
        """What went wrong, of an ERROR. Raises FieldError."""
        with located("object"):
            return decode_as(Status, without_nulls(self.object))


def decode_list(raw: Any) -> ListPage:
    """A list of one kind, such as a PodList, or of `kind: List`. Raises FieldError."""
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List"):
        raise FieldError("kind", "is not that of a list")
    parts = {"metadata": without_nulls(raw.get("metadata")), "items": raw.get("items")}
    page = decode_as(ListPage, {name: part for name, part in parts.items() if part is not None})
    return msgspec.structs.replace(page, items=[with_implied_kind(item, raw) for item in page.items])


def decode_watch_event(raw: Any) -> WatchEvent:
    """One line of a watch. Raises FieldError."""
    return decode_as(WatchEvent, raw)


def with_implied_kind(item: Resource, of: Resource) -> Resource:
    """An item of a list: in one of a single kind the items need not say what they are."""
    if of["kind"] == "List":
        return item
    return {"apiVersion": of.get("apiVersion"), "kind": of["kind"].removesuffix("List"), **item}
