"""Who gives the pods of a local mesh their identities, as its configuration says, and their Workload API sockets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from cryptography import x509
from prometheus_client.registry import Collector

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.observe import Part

from .agent.agent import Agent, Holding
from .agent.remote import RemoteClient, join_token, projected_token
from .agent.spire.provider import SpireProvider
from .agent.spire.setup import spire_provider
from .common.client import AuthorityClient
from .common.keymanager.disk import DiskKeyManager
from .inprocess import InProcessClient
from .server.config import IdentityConfig, ServerSection, endpoint, identity_settings
from .server.registrations import agent_id
from .server.server import IdentityServer, open_authority
from .server.telemetry import AuthorityMetrics

log = logging.getLogger(__name__)


def read_kept_config(kept: Path) -> IdentityConfig:
    """The configuration that the mesh was made with, or given since, as it is kept in a file."""
    return msgspec.json.decode(kept.read_bytes(), type=IdentityConfig) if kept.exists() else IdentityConfig()


class LocalIdentity:
    """The identity provider of a mesh's pods: an authority in this process or elsewhere, or SPIRE."""

    def __init__(self, name: str, directory: Path, config: IdentityConfig, settings: MeshSettings) -> None:
        """`name` is that of the agent, `directory` where the authority keeps its data unless `config` says so.

        Blocks. Raises FieldError, DatastoreError, KeyManagerError.
        """
        directory = Path(config.identity.data_dir or directory)
        self._section, self._trust_domain = config.identity, settings.trust_domain
        self.server: IdentityServer | None = None
        self._client: AuthorityClient | None = None
        self.agent: Agent | SpireProvider
        if config.identity.spire is not None:
            self.agent = spire_provider(config.identity.spire, settings.trust_domain, settings.svid_ttl)
            return
        if config.identity.server is not None:
            self._client = _remote(config.identity.server, settings.trust_domain, directory)
        else:
            self.server = IdentityServer(open_authority(config, settings, directory), config)
            self._client = InProcessClient(self.server.authority, str(agent_id(settings.trust_domain, name)))
        self.agent = Agent(self._client)

    @property
    def admin(self) -> web.Application | None:
        """What operators may do, where the authority is here."""
        return None if self.server is None else self.server.admin

    def where(self) -> dict[str, str]:
        """Who provides identities, and where; an empty address is this process."""
        server, spire = self._section.server, self._section.spire
        address = "" if server is None else server.address
        if spire is not None:
            address = spire.server_address or f"unix:{spire.server_socket}"
        return {"provider": self._section.provider, "address": address, "trust_domain": self._trust_domain}

    def parts(self) -> dict[str, Part]:
        """What has to be ready before pods get their identities."""
        own = {} if self.server is None else self.server.parts()
        return {**own, "identity": lambda: self.agent.problem}

    def holding(self, uid: str) -> Holding | None:
        """What is known of the SVID of the pod with a uid; None when it shall have none."""
        return self.agent.holding(uid)

    def collectors(self) -> list[Collector]:
        """What the authority measures for Prometheus, where it is here."""
        return [] if self.server is None else [AuthorityMetrics(self.server.authority)]

    def facts(self) -> dict[str, Any]:
        """`where`, and what is known of the CAs; `delayed` says why the next one is not there yet."""
        if self.server is None:
            return {**self.where(), "delayed": "", "authorities": []}
        authority = self.server.authority
        slots = (("signing", authority.current), ("prepared", authority.upcoming))
        return {
            **self.where(),
            "delayed": authority.problem,
            "authorities": [
                {"state": state, "id": ca.ca_id, "not_after": ca.not_after} for state, ca in slots if ca is not None
            ],
        }

    async def start(self) -> None:
        """Take up what an earlier daemon left. Raises as Authority.start."""
        if self.server is not None:
            await self.server.start()

    def configure(self, settings: MeshSettings) -> None:
        """Apply the mesh's settings, live, as far as the authority is here. SPIRE takes the life of SVIDs from us."""
        if isinstance(self.agent, SpireProvider):
            self.agent.reconfigure(settings.svid_ttl)
        if self.server is not None:
            self.server.authority.reconfigure(identity_settings(settings))

    async def close(self) -> None:
        """Stop; what was issued stays good until it expires."""
        if self._client is not None:
            await self._client.close()
        if self.server is not None:
            await self.server.close()


def _remote(section: ServerSection, trust_domain: str, directory: Path) -> AuthorityClient:
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
        endpoint(section.address, "identity.server.address"),
        trust_domain,
        bootstrap=roots,
        evidence=evidence,
        keep=DiskKeyManager(directory / "agent"),
    )
