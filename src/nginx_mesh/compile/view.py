"""The outbound entries of one mTLS mode, compiled once for all sidecars of that mode."""

from __future__ import annotations

import msgspec

from nginx_mesh.protocol.state import Cluster, Endpoint, State, StateEntry, cluster_key

from .journal import Journal

Touch = tuple[str, str | None]  # an entry's key and None, or a cluster's name and the endpoint that changed


class View:
    """Entries with a journal of what changed in them: whole entries, or single endpoints of clusters.

    A change of one endpoint costs the same whatever the size of its cluster. Encoded entries are kept for the
    sidecars that need them whole.
    """

    def __init__(self, entries: State, version: int, capacity: int) -> None:
        self._entries: dict[str, StateEntry] = dict(entries)
        self._encoded: dict[str, msgspec.Raw] = {}
        self._journal: Journal[Touch] = Journal(version, capacity)

    def keys(self) -> set[str]:
        """Keys of all entries."""
        return set(self._entries)

    def encoded(self, key: str) -> msgspec.Raw | None:
        """An entry as JSON, None when there is none."""
        known = self._encoded.get(key)
        if known is None and key in self._entries:
            known = self._encoded[key] = msgspec.Raw(msgspec.json.encode(self._entries[key]))
        return known

    def everything(self) -> dict[str, msgspec.Raw]:
        """All entries as JSON."""
        return {key: entry for key in self._entries if (entry := self.encoded(key)) is not None}

    def endpoint(self, name: str, address: str) -> Endpoint | None:
        """The endpoint at an address ("ip:port") of the cluster of this name, None when it has none there."""
        cluster = self._entries.get(cluster_key(name))
        return cluster.endpoints.get(address) if isinstance(cluster, Cluster) else None

    def set(self, key: str, entry: StateEntry | None, version: int) -> bool:
        """Put an entry or (None) take it away. Whether that changed anything."""
        if self._entries.get(key) == entry:
            return False
        self._encoded.pop(key, None)
        if entry is None:
            del self._entries[key]
        else:
            self._entries[key] = entry
        self._journal.record((key, None), version)
        return True

    def set_endpoint(self, name: str, address: str, endpoint: Endpoint | None, version: int) -> bool:
        """Put an endpoint or (None) take it away. Whether that changed anything: not where there is no such cluster."""
        key = cluster_key(name)
        cluster = self._entries.get(key)
        if not isinstance(cluster, Cluster) or cluster.endpoints.get(address) == endpoint:
            return False
        self._encoded.pop(key, None)
        if endpoint is None:
            del cluster.endpoints[address]
        else:
            cluster.endpoints[address] = endpoint
        self._journal.record((name, address), version)
        return True

    def since(self, version: int) -> list[Touch] | None:
        """What changed after a version, None when that is too long ago to tell."""
        return self._journal.since(version)
