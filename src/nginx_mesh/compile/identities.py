"""SPIFFE IDs of service accounts, as sidecars compare them."""

from __future__ import annotations

from functools import lru_cache

from nginx_mesh.api.spiffe import SpiffeIdError, workload_id


@lru_cache(maxsize=16384)
def account_id(trust_domain: str, namespace: str, account: str) -> str | None:
    """The SPIFFE ID of a service account, None when its name cannot be part of one: then nobody can hold it."""
    try:
        return str(workload_id(trust_domain, namespace, account))
    except SpiffeIdError:
        return None
