"""The SPIRE provider that the configuration file describes."""

from __future__ import annotations

import re
from pathlib import Path

from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError
from nginx_mesh.api.values import parse_host_port
from nginx_mesh.identity.agent.config import SpireSection

from .channel import ServerChannel, TcpServer, UnixServer
from .entries import Selector
from .plan import EntrySettings
from .provider import SpireProvider

_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")


def spire_provider(section: SpireSection, trust_domain: str, svid_ttl: int) -> SpireProvider:
    """The provider for workloads of SPIRE's `trust_domain`. `svid_ttl` is seconds. Raises FieldError."""
    return SpireProvider(
        entry_settings(section, trust_domain, svid_ttl), Path(section.agent_socket), _server(section, trust_domain)
    )


def entry_settings(section: SpireSection, trust_domain: str, svid_ttl: int) -> EntrySettings:
    """What all entries of this machine have in common. Raises FieldError."""
    if not section.selectors:
        raise FieldError("identity.spire.selectors", "is empty: everybody would be entitled")
    selectors = set()
    for index, text in enumerate(section.selectors):
        try:
            selectors.add(Selector.parse(text))
        except ValueError as error:
            raise FieldError(f"identity.spire.selectors[{index}]", str(error)) from None
    for index, name in enumerate(section.federates_with):
        _id(f"identity.spire.federatesWith[{index}]", f"spiffe://{name}")
    if not _PREFIX.fullmatch(section.entry_prefix):
        raise FieldError("identity.spire.entryPrefix", "is not 1 to 64 letters, digits, dots, dashes and underscores")
    return EntrySettings(
        _member("identity.spire.parentID", section.parent_id, trust_domain),
        frozenset(selectors),
        svid_ttl,
        frozenset(section.federates_with),
        section.entry_prefix,
    )


def _server(section: SpireSection, trust_domain: str) -> ServerChannel:
    if (section.server_socket is None) == (section.server_address is None):
        raise FieldError("identity.spire", "needs one of serverSocket and serverAddress")
    if section.server_address is None:
        if section.admin_id is not None:
            raise FieldError("identity.spire.adminID", "has no meaning with serverSocket")
        return UnixServer(Path(str(section.server_socket)))
    if section.admin_id is None:
        raise FieldError("identity.spire.adminID", "is required with serverAddress")
    with located("identity.spire.serverAddress"):
        address = parse_host_port(section.server_address)
    return TcpServer(address, _member("identity.spire.adminID", section.admin_id, trust_domain))


def _member(field: str, text: str, trust_domain: str) -> SpiffeId:
    spiffe_id = _id(field, text)
    if spiffe_id.trust_domain != trust_domain or not spiffe_id.path:
        raise FieldError(field, f"is no SPIFFE ID in the mesh's trust domain {trust_domain}")
    return spiffe_id


def _id(field: str, text: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise FieldError(field, str(error)) from None
