"""The outbound entries that all sidecars of one mTLS mode share, compiled once for all of them."""

from __future__ import annotations

import msgspec

from nginx_mesh.protocol.state import Cluster, Endpoint, State, StateEntry, cluster_key

from .changelog import ChangeLog

EntryChange = tuple[str, str | None]
"""The key of a changed entry, and None; or the name of a cluster, and the address of its endpoint that changed."""


class SharedEntries:
    """Entries, and a log of the entries and of the single endpoints of clusters that changed.

    A change of one endpoint costs the same whatever the size of its cluster. The JSON of each entry is kept for all
    sidecars that need it.
    """

    def __init__(self, entries: State, version: int, capacity: int) -> None:
        self._entries: dict[str, StateEntry] = dict(entries)
        self._encoded: dict[str, msgspec.Raw] = {}
        self._changelog: ChangeLog[EntryChange] = ChangeLog(version, capacity)

    def keys(self) -> set[str]:
        """The keys of all entries."""
        return set(self._entries)

    def encoded(self, key: str) -> msgspec.Raw | None:
        """An entry as JSON, None when there is none."""
        known = self._encoded.get(key)
        if known is None and key in self._entries:
            known = self._encoded[key] = msgspec.Raw(msgspec.json.encode(self._entries[key]))
        return known

    def all_encoded(self) -> dict[str, msgspec.Raw]:
        """All entries as JSON."""
        return {key: entry for key in self._entries if (entry := self.encoded(key)) is not None}

    def endpoint(self, name: str, address: str) -> Endpoint | None:
        """The endpoint at an address ("ip:port") of the cluster of this name, None when it has none there."""
        cluster = self._entries.get(cluster_key(name))
        return cluster.endpoints.get(address) if isinstance(cluster, Cluster) else None

    def set(self, key: str, entry: StateEntry | None, version: int) -> bool:
        """Store an entry; None deletes it. Returns whether anything changed."""
        if self._entries.get(key) == entry:
            return False
        self._encoded.pop(key, None)
        if entry is None:
            del self._entries[key]
        else:
            self._entries[key] = entry
        self._changelog.record((key, None), version)
        return True

    def set_endpoint(self, name: str, address: str, endpoint: Endpoint | None, version: int) -> bool:
        """Store an endpoint; None deletes it. Returns whether anything changed: nothing does without the cluster."""
        key = cluster_key(name)
        cluster = self._entries.get(key)
        if not isinstance(cluster, Cluster) or cluster.endpoints.get(address) == endpoint:
            return False
        self._encoded.pop(key, None)
        if endpoint is None:
            del cluster.endpoints[address]
        else:
            cluster.endpoints[address] = endpoint
        self._changelog.record((name, address), version)
        return True

    def since(self, version: int) -> list[EntryChange] | None:
        """The changes after a version; None when some of them may have been forgotten."""
        return self._changelog.since(version)
