"""An identity server: an authority, and the APIs that serve it to agents, operators and other trust domains."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.identity.common.address import parse_address
from nginx_mesh.identity.common.bundle import BundleError
from nginx_mesh.identity.common.ids import server_spiffe_id
from nginx_mesh.identity.common.keymanager import KeyManagerError, open_key_manager
from nginx_mesh.identity.common.tls import server_context
from nginx_mesh.identity.common.x509svid import certificates_pem
from nginx_mesh.observe import MonitoringEndpoints, Part
from nginx_mesh.observe import listen as serve_health
from nginx_mesh.observe.tasks import TaskSet

from .admin import AdminApi, errors
from .attestation import JoinTokens, NodeAttestor
from .authority import Authority
from .carecords import CaRecordsError
from .config import ServerConfig, datastore_config, parse_health_address
from .datastore import DatastoreError, open_datastore
from .federation.service import Federation
from .nodeapi import NodeApi
from .ownsvid import OwnSvid
from .settings import identity_settings
from .telemetry import AuthorityMetrics

log = logging.getLogger(__name__)

_WRITE_AGAIN_SECONDS = 10.0


def open_authority(
    config: ServerConfig, settings: MeshSettings, directory: Path, clock: Callable[[], float] = time.time
) -> Authority:
    """The authority that a configuration describes. Blocks. Relative paths begin in `directory`, where keys are kept.

    Raises FieldError, DatastoreError, KeyManagerError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # by default it logs every step
    upstream = None
    if settings.upstream_authority is not None:
        from .upstream import open_upstream  # clients of clouds are heavy

        with located("mtls.upstreamAuthority"):
            upstream = open_upstream(settings.upstream_authority)
    key_manager = open_key_manager(settings.key_manager, directory / "keys")
    datastore = open_datastore(datastore_config(config, settings), directory, clock)
    return Authority(
        identity_settings(settings),
        key_manager=key_manager,
        datastore=datastore,
        upstream=upstream,
        server_id=config.server_id or socket.gethostname(),
        clock=clock,
    )


class IdentityServer:
    """Runs an authority and its APIs. `admin` is the HTTP application for operators, which its owner may serve, too."""

    def __init__(self, authority: Authority, config: ServerConfig) -> None:
        self.authority = authority
        self.tokens = JoinTokens(authority.datastore, authority.clock)
        self._config = config
        self._own = OwnSvid(authority, server_spiffe_id(authority.settings.trust_domain))
        self._federation = Federation(config.federation, authority.datastore, self._own, lambda: authority.bundles.own)
        self.admin = AdminApi(authority, self.tokens, self._federation.reload).app
        self._runners: list[web.AppRunner] = []
        self._tasks = TaskSet()
        self._listening = False

    async def start(self) -> None:
        """Take up what an earlier process left. Raises the errors of Authority.start, and FieldError."""
        await self.authority.start()
        self._tasks.start(self.authority.run(), "run the authority")
        await self._federation.start()
        self._tasks.start(self._federation.run(), "run the federation")
        path = self._config.bundle_path
        if path is not None:
            self._tasks.start(self._write_bundles(Path(path)), f"write bundles to {path}")

    def parts(self) -> dict[str, Part]:
        """What has to be ready before anything is issued."""
        return {"ca": self._ca, "datastore": self._datastore}

    async def listen(self) -> None:
        """Serve agents. Raises FieldError when the address cannot be listened at."""
        address = parse_address(self._config.listen, "identity.listen")
        runner = web.AppRunner(NodeApi(self.authority, self._attestors()).app, access_log=None, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        context = server_context(self._own, lambda: self.authority.bundles.own, lambda _: None, "optional")
        site: web.BaseSite
        if isinstance(address, Path):
            address.unlink(missing_ok=True)
            site = web.UnixSite(runner, str(address), ssl_context=context)
        else:
            site = web.TCPSite(runner, address.host, address.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise FieldError("identity.listen", f"{address}: {error.strerror or error}") from None
        self._listening = True
        log.info("serving agents of %s at %s", self.authority.settings.trust_domain, address)

    async def listen_admin(self, path: Path) -> None:
        """Serve operators on a unix socket that only the owner can open. Raises OSError."""
        app = web.Application(middlewares=[errors])
        app.add_subapp("/identity", self.admin)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            await web.UnixSite(runner, str(path)).start()
        finally:
            os.umask(old)

    async def listen_health(self, text: str) -> None:
        """Serve /metrics, /healthz and /readyz at an address. Raises FieldError when it cannot be used."""
        address = parse_health_address(text)
        parts = {**self.parts(), "agents": lambda: "" if self._listening else "agents are not served yet"}
        try:
            self._runners.append(
                await serve_health(MonitoringEndpoints(parts, [AuthorityMetrics(self.authority)]), address)
            )
        except OSError as error:
            raise FieldError("identity.healthAddress", f"{address}: {error.strerror or error}") from None

    async def close(self) -> None:
        """Stop serving. SVIDs that were issued stay valid until they expire."""
        await self._federation.close()
        for runner in self._runners:
            await runner.cleanup()
        await self._tasks.close()
        await self.authority.close()

    def _ca(self) -> str:
        authority = self.authority
        if authority.issues:
            return ""
        return "there is no valid CA to issue from" + (f": {authority.problem}" if authority.problem else "")

    async def _datastore(self) -> str:
        try:
            await asyncio.to_thread(self.authority.datastore.ca_records, self.authority.server_id)
        except DatastoreError as error:
            return str(error)
        return ""

    def _attestors(self) -> dict[str, NodeAttestor]:
        attestors: dict[str, NodeAttestor] = {"join_token": self.tokens}
        section = self._config.attestation.k8s_psat
        if section is not None:
            from .attestation.k8s_psat import ProjectedTokens  # the client of Kubernetes is heavy

            attestors["k8s_psat"] = ProjectedTokens(
                self.authority.settings.trust_domain,
                section.service_account_allow_list,
                audience=section.audience,
                kube_config_file=section.kube_config_file,
            )
        return attestors

    async def _write_bundles(self, path: Path) -> None:
        """Write every new bundle to a file, until cancelled."""
        async for announcement in self.authority.watch():
            own = announcement.bundles[announcement.trust_domain]
            pem = certificates_pem(own.x509_authorities)
            while not await asyncio.to_thread(_written, path, pem):
                await asyncio.sleep(_WRITE_AGAIN_SECONDS)


def _written(path: Path, text: str) -> bool:
    """Replace a file that everybody may read. Returns whether that worked; a failure is logged."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        log.error("the bundle is not written to %s: %s", path, error.strerror)
        return False
    return True


START_ERRORS = (FieldError, DatastoreError, KeyManagerError, CaRecordsError, BundleError, OSError)
"""The errors of a server's start, which its process prints without a traceback."""
