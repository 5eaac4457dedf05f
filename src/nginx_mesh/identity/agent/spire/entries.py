"""A client of the Entry API of SPIRE servers, whose registration entries say who may have which SPIFFE ID."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError

from . import entry_pb2 as pb

SERVICE = "spire.api.server.entry.v1.Entry"

_TIMEOUT = 15.0
_PAGE = 500
# Entries in one request: at a few hundred bytes each, well within the 4 MiB that a server takes.
_BATCH = 200
_MAX_PAGES = 10_000
_OK, _NOT_FOUND, _ALREADY_EXISTS = (grpc.StatusCode[name].value[0] for name in ("OK", "NOT_FOUND", "ALREADY_EXISTS"))
_MASK = pb.EntryMask(
    spiffe_id=True, parent_id=True, selectors=True, x509_svid_ttl=True, federates_with=True, dns_names=True
)

T = TypeVar("T")
Response = TypeVar("Response", bound=Message)


class SpireError(Exception):
    """The SPIRE server did not do what it was asked. The message says what and why."""


@dataclass(frozen=True, order=True)
class Selector:
    """What a SPIRE agent finds out about a workload: `unix:uid:0` has the type "unix" and the value "uid:0"."""

    type: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Selector:
        """The selector in a text `type:value`. Raises ValueError."""
        kind, colon, value = text.partition(":")
        if not kind or not colon or not value:
            raise ValueError(f"{text!r} is not a selector as type:value")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


@dataclass(frozen=True)
class Entry:
    """The identity of every workload in which the agent `parent_id` finds all `selectors`. `svid_ttl` is seconds."""

    entry_id: str
    spiffe_id: SpiffeId
    parent_id: SpiffeId
    selectors: frozenset[Selector]
    dns_names: tuple[str, ...] = ()
    federates_with: frozenset[str] = frozenset()
    svid_ttl: int = 0


class Channel(Protocol):
    """What the client needs of a grpc.aio.Channel."""

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any) -> Any:
        """A callable for a method."""


class EntryClient:
    """Calls a SPIRE server. All methods raise SpireError; batches that the server took before that remain."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def of_parent(self, parent_id: SpiffeId) -> list[Entry]:
        """All entries with this parent. Those whose IDs are no valid SPIFFE IDs are ignored."""
        request = pb.ListEntriesRequest(
            filter=pb.ListEntriesRequest.Filter(by_parent_id=_id(parent_id)), output_mask=_MASK, page_size=_PAGE
        )
        found: list[Entry] = []
        for _ in range(_MAX_PAGES):
            answer = await self._call("ListEntries", request, pb.ListEntriesResponse)
            found += filter(None, map(_parsed, answer.entries))
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token
        raise SpireError(f"ListEntries: more than {_MAX_PAGES} pages")

    async def create(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Add entries. One that exists under another ID counts as added.

        Returns the entries that the server refused: the reason by the ID of the entry.
        """
        refused: dict[str, str] = {}
        for batch in _batches(entries):
            request = pb.BatchCreateEntryRequest(entries=map(_message, batch), output_mask=pb.EntryMask())
            answer = await self._call("BatchCreateEntry", request, pb.BatchCreateEntryResponse)
            refused |= _refused("BatchCreateEntry", [e.entry_id for e in batch], answer.results, _ALREADY_EXISTS)
        return refused

    async def update(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Replace entries that have the same IDs. Returns what `create` does."""
        refused: dict[str, str] = {}
        for batch in _batches(entries):
            request = pb.BatchUpdateEntryRequest(
                entries=map(_message, batch), input_mask=_MASK, output_mask=pb.EntryMask()
            )
            answer = await self._call("BatchUpdateEntry", request, pb.BatchUpdateEntryResponse)
            refused |= _refused("BatchUpdateEntry", [e.entry_id for e in batch], answer.results)
        return refused

    async def delete(self, entry_ids: Sequence[str]) -> dict[str, str]:
        """Remove entries by their IDs. Unknown ones are ignored. Returns what `create` does."""
        refused: dict[str, str] = {}
        for batch in _batches(entry_ids):
            request = pb.BatchDeleteEntryRequest(ids=batch)
            answer = await self._call("BatchDeleteEntry", request, pb.BatchDeleteEntryResponse)
            refused |= _refused("BatchDeleteEntry", batch, answer.results, _NOT_FOUND)
        return refused

    async def _call(self, method: str, request: Message, response: type[Response]) -> Response:
        call = self._channel.unary_unary(f"/{SERVICE}/{method}", None, None)
        try:
            # gRPC would make None of an answer that it cannot read.
            return response.FromString(await call(request.SerializeToString(), timeout=_TIMEOUT))
        except grpc.aio.AioRpcError as error:
            raise SpireError(f"{method}: {error.code().name}: {error.details()}") from None
        except DecodeError:
            raise SpireError(f"{method}: the answer is malformed") from None


def _message(entry: Entry) -> pb.Entry:
    return pb.Entry(
        id=entry.entry_id,
        spiffe_id=_id(entry.spiffe_id),
        parent_id=_id(entry.parent_id),
        selectors=[pb.Selector(type=s.type, value=s.value) for s in sorted(entry.selectors)],
        x509_svid_ttl=entry.svid_ttl,
        federates_with=sorted(entry.federates_with),
        dns_names=entry.dns_names,
    )


def _parsed(message: pb.Entry) -> Entry | None:
    try:
        return Entry(
            message.id,
            SpiffeId(message.spiffe_id.trust_domain, message.spiffe_id.path),
            SpiffeId(message.parent_id.trust_domain, message.parent_id.path),
            frozenset(Selector(s.type, s.value) for s in message.selectors),
            tuple(message.dns_names),
            frozenset(message.federates_with),
            message.x509_svid_ttl,
        )
    except SpiffeIdError:
        return None  # older servers took IDs that are no SPIFFE IDs


def _id(spiffe_id: SpiffeId) -> pb.SPIFFEID:
    return pb.SPIFFEID(trust_domain=spiffe_id.trust_domain, path=spiffe_id.path)


def _batches(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


def _refused(method: str, ids: Sequence[str], results: Sequence[Any], *fine: int) -> dict[str, str]:
    if len(results) != len(ids):
        raise SpireError(f"{method}: {len(results)} results for {len(ids)} entries")
    return {
        entry_id: result.status.message or f"status {result.status.code}"
        for entry_id, result in zip(ids, results, strict=True)
        if result.status.code not in (_OK, *fine)
    }
