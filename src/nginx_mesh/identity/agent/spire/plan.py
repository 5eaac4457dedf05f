"""Which registration entries SPIRE's server has to have, and what to change until it has them. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nginx_mesh.api.spiffe import SpiffeId

from .entries import Entry, Selector


@dataclass(frozen=True)
class EntrySettings:
    """What all of our entries have in common.

    `parent_id` is the agent that serves this machine, and recognises us by `selectors`. The IDs of our entries begin
    with `prefix` (letters, digits, dots, dashes, underscores). All other entries are somebody else's. `svid_ttl` is
    seconds.
    """

    parent_id: SpiffeId
    selectors: frozenset[Selector]
    svid_ttl: int
    federates_with: frozenset[str] = frozenset()
    prefix: str = "nginx-mesh"

    def is_ours(self, entry: Entry) -> bool:
        """Whether this process made the entry, or an earlier one with the same prefix."""
        return entry.parent_id == self.parent_id and bool(
            re.fullmatch(rf"{re.escape(self.prefix)}-[0-9a-f]{{32}}", entry.entry_id)
        )


@dataclass(frozen=True)
class Plan:
    """Changes of entries. `surplus` has the IDs of ours that nobody needs, `foreign` those of others that we use."""

    create: tuple[Entry, ...] = ()
    update: tuple[Entry, ...] = ()
    surplus: frozenset[str] = frozenset()
    foreign: tuple[Entry, ...] = ()


def wanted(settings: EntrySettings, registered: Iterable[tuple[SpiffeId, Iterable[str]]]) -> dict[SpiffeId, Entry]:
    """One entry for each SPIFFE ID, with the DNS names of all workloads that share it."""
    names: dict[SpiffeId, set[str]] = {}
    for spiffe_id, dns_names in registered:
        names.setdefault(spiffe_id, set()).update(dns_names)
    return {
        spiffe_id: Entry(
            f"{settings.prefix}-{_fingerprint(settings, spiffe_id)}",
            spiffe_id,
            settings.parent_id,
            settings.selectors,
            tuple(sorted(dns_names)),
            settings.federates_with,
            settings.svid_ttl,
        )
        for spiffe_id, dns_names in names.items()
    }


def plan(settings: EntrySettings, entries: Mapping[SpiffeId, Entry], existing: Iterable[Entry]) -> Plan:
    """How to get from what exists to what is wanted.

    Only entries of ours are ever changed. Where somebody else made an equal one, we use that, because SPIRE takes no
    second one.
    """
    missing = {entry.entry_id: entry for entry in entries.values()}
    update: list[Entry] = []
    surplus: set[str] = set()
    foreign: list[Entry] = []
    for entry in existing:
        if settings.is_ours(entry):
            if (want := missing.pop(entry.entry_id, None)) is None:
                surplus.add(entry.entry_id)
            elif _normal(want) != _normal(entry):
                update.append(want)
        elif (entry.parent_id, entry.selectors) == (settings.parent_id, settings.selectors):
            foreign.append(entry)
    used = tuple(entry for entry in foreign if (want := entries.get(entry.spiffe_id)) and want.entry_id in missing)
    for entry in used:
        missing.pop(entries[entry.spiffe_id].entry_id, None)
    return Plan(tuple(missing.values()), tuple(update), frozenset(surplus), used)


def _fingerprint(settings: EntrySettings, spiffe_id: SpiffeId) -> str:
    parts = [str(settings.parent_id), str(spiffe_id), *map(str, sorted(settings.selectors))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _normal(entry: Entry) -> Entry:
    """The entry with its DNS names sorted, as their order means nothing."""
    return Entry(
        entry.entry_id,
        entry.spiffe_id,
        entry.parent_id,
        entry.selectors,
        tuple(sorted(entry.dns_names)),
        entry.federates_with,
        entry.svid_ttl,
    )
