"""The identity provider of a local mesh: an authority in this process, or what the configuration names elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client.registry import Collector

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.observe import Part

from .agent.agent import Agent
from .agent.setup import open_provider
from .agent.spire.provider import SpireProvider
from .common.ids import agent_spiffe_id
from .config import IdentityConfig
from .inprocess import InProcessClient
from .server.server import IdentityServer, open_authority
from .server.settings import identity_settings
from .server.telemetry import AuthorityMetrics


def read_kept_config(kept: Path) -> IdentityConfig:
    """The configuration that the mesh was made with, or given since, as it is kept in a file."""
    return msgspec.json.decode(kept.read_bytes(), type=IdentityConfig) if kept.exists() else IdentityConfig()


class LocalIdentity:
    """The identity provider of a mesh's pods, and the identity server where it is in this process."""

    def __init__(self, name: str, directory: Path, config: IdentityConfig, settings: MeshSettings) -> None:
        """`name` is that of the agent. Data is kept in `directory`, unless `config` names another one.

        Blocks. Raises FieldError, DatastoreError, KeyManagerError.
        """
        directory = Path(config.identity.data_dir or directory)
        self._section, self._trust_domain = config.identity, settings.trust_domain
        self.server: IdentityServer | None = None
        self.agent: Agent | SpireProvider
        elsewhere = config.identity.spire or config.identity.server
        if elsewhere is not None:
            self.agent = open_provider(elsewhere, settings.trust_domain, settings.svid_ttl, directory)
        else:
            self.server = IdentityServer(open_authority(config.identity, settings, directory), config.identity)
            spiffe_id = agent_spiffe_id(settings.trust_domain, name)
            self.agent = Agent(InProcessClient(self.server.authority, str(spiffe_id)))

    @property
    def admin(self) -> web.Application | None:
        """The HTTP application for operators of the authority, None where it is not here."""
        return None if self.server is None else self.server.admin

    def where(self) -> dict[str, str]:
        """Who provides identities, and where. An empty `address` means this process."""
        server, spire = self._section.server, self._section.spire
        address = "" if server is None else server.address
        if spire is not None:
            address = spire.server_address or f"unix:{spire.server_socket}"
        return {"provider": self._section.provider, "address": address, "trust_domain": self._trust_domain}

    def parts(self) -> dict[str, Part]:
        """What has to be ready before pods get their identities."""
        own = {} if self.server is None else self.server.parts()
        return {**own, "identity": lambda: self.agent.problem}

    def svid_status(self, uid: str) -> SvidStatus | None:
        """What the pod with this uid holds, None when it is not registered."""
        return self.agent.svid_status(uid)

    def collectors(self) -> list[Collector]:
        """What the authority measures for Prometheus, where it is here."""
        return [] if self.server is None else [AuthorityMetrics(self.server.authority)]

    def facts(self) -> dict[str, Any]:
        """`where`, and what is known of the CAs. `delayed` says why the next one could not be made, "" if it could."""
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
        """Apply the mesh's settings to an authority that is here, and the life of SVIDs to SPIRE's entries."""
        if isinstance(self.agent, SpireProvider):
            self.agent.reconfigure(settings.svid_ttl)
        if self.server is not None:
            self.server.authority.reconfigure(identity_settings(settings))

    async def close(self) -> None:
        """Stop. What was issued stays good until it expires."""
        if self.server is not None:
            await self.server.close()
