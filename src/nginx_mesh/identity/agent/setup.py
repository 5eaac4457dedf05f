"""The identity provider of a machine, as the configuration file describes it."""

from __future__ import annotations

import logging
from pathlib import Path

from cryptography import x509

from nginx_mesh.api.errors import FieldError
from nginx_mesh.identity.common.address import parse_address
from nginx_mesh.identity.common.keymanager.disk import DiskKeyManager

from .agent import Agent
from .config import ServerSection, SpireSection
from .remote import RemoteClient, join_token, projected_token
from .spire.provider import SpireProvider
from .spire.setup import spire_provider

log = logging.getLogger(__name__)


def open_provider(
    section: ServerSection | SpireSection, trust_domain: str, svid_ttl: int, directory: Path
) -> Agent | SpireProvider:
    """The provider of identities in `trust_domain` from an identity server in another process, or from SPIRE.

    `svid_ttl` is seconds and for SPIRE, as an identity server has its own. An agent of an identity server keeps its own
    SVID in `directory`. Blocks. Raises FieldError, and KeyManagerError when what is kept is damaged.
    """
    if isinstance(section, SpireSection):
        return spire_provider(section, trust_domain, svid_ttl)
    return Agent(_remote_client(section, trust_domain, directory))


def _remote_client(section: ServerSection, trust_domain: str, directory: Path) -> RemoteClient:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def roots() -> tuple[x509.Certificate, ...]:
        try:
            return tuple(x509.load_pem_x509_certificates(Path(section.trust_bundle).read_bytes()))
        except (OSError, ValueError) as error:
            log.warning("identity.server.trustBundle: %s: %s", section.trust_bundle, error)
            return ()

    if not roots():
        raise FieldError("identity.server.trustBundle", f"{section.trust_bundle}: no certificates in PEM")
    if section.token_path is not None:
        evidence = projected_token(Path(section.token_path))
    elif section.join_token_file is not None:
        evidence = join_token(Path(section.join_token_file))
    else:
        raise FieldError("identity.server.joinTokenFile", "is required: nothing else vouches for this machine")
    return RemoteClient(
        parse_address(section.address, "identity.server.address"),
        trust_domain,
        bootstrap=roots,
        evidence=evidence,
        keep=DiskKeyManager(directory / "agent"),
    )
