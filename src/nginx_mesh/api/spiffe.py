"""SPIFFE IDs, per the SPIFFE-ID standard: `spiffe://<trust domain>[/<segment>…]`.

Stricter than RFC 3986 as the standard demands: no percent-encoding, port, user, query or fragment, and only one
spelling of each ID, so that comparing IDs is comparing strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_ID_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255

_SCHEME = "spiffe://"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


class SpiffeIdError(ValueError):
    """A SPIFFE ID, or a part of one, that the standard does not allow. The message names the reason."""


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A valid SPIFFE ID. `path` is "" (the trust domain itself) or starts with "/". Raises SpiffeIdError."""

    trust_domain: str
    path: str = ""

    def __post_init__(self) -> None:
        _check_trust_domain(self.trust_domain)
        if self.path:
            _check_path(self.path)
        if len(str(self)) > MAX_ID_BYTES:
            raise SpiffeIdError(f"SPIFFE ID has {len(str(self))} bytes; the limit is {MAX_ID_BYTES}")

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """The ID that `text` spells. Raises SpiffeIdError."""
        if len(text) > MAX_ID_BYTES:
            raise SpiffeIdError(f"SPIFFE ID has more than {MAX_ID_BYTES} bytes")
        if not text.startswith(_SCHEME):
            raise SpiffeIdError(f"SPIFFE ID {text!r} does not start with {_SCHEME!r}")
        trust_domain, slash, path = text.removeprefix(_SCHEME).partition("/")
        return cls(trust_domain, slash + path)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def workload_id(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """The identity of a Kubernetes service account: spiffe://<td>/ns/<namespace>/sa/<service account>."""
    for what, name in (("namespace", namespace), ("service account", service_account)):
        if "/" in name:
            raise SpiffeIdError(f"{what} {name!r} contains a slash")
        if not name:
            raise SpiffeIdError(f"{what} is empty")
    return SpiffeId(trust_domain, f"/ns/{namespace}/sa/{service_account}")


def _check_trust_domain(name: str) -> None:
    if not name:
        raise SpiffeIdError("trust domain is empty")
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        raise SpiffeIdError(f"trust domain has {len(name)} bytes; the limit is {MAX_TRUST_DOMAIN_BYTES}")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise SpiffeIdError(f"trust domain {name!r} has characters other than a-z, 0-9, dot, dash and underscore")


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise SpiffeIdError("path does not start with a slash")
    if path.endswith("/"):
        raise SpiffeIdError("path ends with a slash")
    for segment in path[1:].split("/"):
        if not segment:
            raise SpiffeIdError("path has an empty segment")
        if segment in {".", ".."}:
            raise SpiffeIdError(f"path has the relative segment {segment!r}")
        if not _SEGMENT.fullmatch(segment):
            shown = segment if len(segment) <= 64 else segment[:64] + "…"
            raise SpiffeIdError(f"path segment {shown!r} has characters other than letters, digits, '.', '-' and '_'")


@lru_cache(maxsize=16384)
def account_id(trust_domain: str, namespace: str, account: str) -> str | None:
    """The SPIFFE ID of a service account as text.

    None when the account's name cannot be part of a SPIFFE ID: then no workload can hold it.
    """
    try:
        return str(workload_id(trust_domain, namespace, account))
    except SpiffeIdError:
        return None
