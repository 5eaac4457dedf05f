"""Which registrations of workloads an identity server accepts. Pure."""

from __future__ import annotations

import re

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError
from nginx_mesh.identity.common.client import RefusedError, Registration
from nginx_mesh.identity.common.entry import RegistrationEntry
from nginx_mesh.identity.common.x509svid import check_dns_names

MAX_NAMES = 200

_WORKLOAD = re.compile(r"/ns/[^/]+/sa/[^/]+")
_ENTRY_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_MAX_SELECTORS = 50
_MAX_SELECTOR = 1000


def is_entry_id(text: str) -> bool:
    """Whether a registration may have this ID: 1 to 200 letters, digits, dots, underscores, colons and dashes."""
    return _ENTRY_ID.fullmatch(text) is not None


def entry_of(registration: Registration, parent: str, trust_domain: str, now: float) -> RegistrationEntry:
    """The registration entry that a registration by the agent `parent` (a SPIFFE ID) makes at `now` (Unix seconds).

    Raises RefusedError, which names the entry, the field and the reason.
    """
    found = registration
    if not is_entry_id(found.entry_id):
        raise RefusedError(f"entry_id {found.entry_id[:80]!r}: 1 to 200 letters, digits, '.', '_', ':' and '-'")

    def refused(field: str, reason: object) -> RefusedError:
        return RefusedError(f"entry {found.entry_id}: {field}: {reason}")

    try:
        spiffe_id = SpiffeId.parse(found.spiffe_id)
    except SpiffeIdError as error:
        raise refused("spiffe_id", error) from None
    if spiffe_id.trust_domain != trust_domain:
        raise refused("spiffe_id", f"{spiffe_id} is not in the trust domain {trust_domain}")
    if not _WORKLOAD.fullmatch(spiffe_id.path):
        raise refused("spiffe_id", f"{spiffe_id} is not that of a workload, spiffe://{trust_domain}/ns/…/sa/…")
    if len(found.dns_names) > MAX_NAMES:
        raise refused("dns_names", f"{len(found.dns_names)} names; the limit is {MAX_NAMES}")
    try:
        check_dns_names(found.dns_names)
    except ValueError as error:
        raise refused("dns_names", error) from None
    if len(found.selectors) > _MAX_SELECTORS or any(len(each) > _MAX_SELECTOR for each in found.selectors):
        raise refused("selectors", f"at most {_MAX_SELECTORS}, of {_MAX_SELECTOR} characters each")
    return RegistrationEntry(
        found.entry_id,
        str(spiffe_id),
        parent,
        found.selectors,
        tuple(dict.fromkeys(found.dns_names)),
        created_at=int(now),
    )
