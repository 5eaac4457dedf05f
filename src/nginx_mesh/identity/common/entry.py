"""Registration entries: the workloads of a trust domain that shall have an identity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RegistrationEntry:
    """A workload that shall have an identity.

    Whoever registers the workload chooses `entry_id`, such as a pod's uid. `parent_id` is the SPIFFE ID of the agent
    that may obtain the identity. TTLs are seconds, 0 for the server's default; `created_at` is Unix seconds.
    """

    entry_id: str
    spiffe_id: str
    parent_id: str
    selectors: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    x509_ttl: int = 0
    jwt_ttl: int = 0
    created_at: int = 0
