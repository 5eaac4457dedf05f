"""Which identity each pod is to have: its SPIFFE ID, and the DNS names of the Services that select it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Changes
from nginx_mesh.compile.dnsnames import DnsNames

Register = Callable[[str, SpiffeId, Sequence[str]], None]
"""Is told that the pod with a uid shall have this SPIFFE ID and these DNS names, from now on."""


class _Registration(NamedTuple):
    uid: str
    account: str


class Registrations:
    """Keeps identities registered for the pods that it is told of, with the DNS names that they have at any time."""

    def __init__(self, catalog: Catalog, trust_domain: str, register: Register) -> None:
        self._trust_domain = trust_domain
        self._register = register
        self._names = DnsNames(catalog)
        self._pods: dict[ObjectKey, _Registration] = {}

    def add(self, pod: ObjectKey, uid: str, account: str) -> None:
        """The pod runs with this uid and service account, and shall have its identity."""
        self._pods[pod] = _Registration(uid, account)
        self._tell(pod)

    def remove(self, pod: ObjectKey) -> None:
        """The pod is gone."""
        self._pods.pop(pod, None)
        self._names.forget(pod)

    def follow(self, changes: Changes) -> None:
        """Register the pods again whose DNS names these changes of the catalog touched."""
        for pod in self._names.changed(changes):
            self._tell(pod)

    def spiffe_id(self, pod: ObjectKey) -> str | None:
        """The SPIFFE ID that a pod shall have, None when the pod was not added."""
        known = self._pods.get(pod)
        return None if known is None else str(workload_id(self._trust_domain, pod.namespace, known.account))

    def _tell(self, pod: ObjectKey) -> None:
        uid, account = self._pods[pod]
        self._register(uid, workload_id(self._trust_domain, pod.namespace, account), self._names.follow(pod))
