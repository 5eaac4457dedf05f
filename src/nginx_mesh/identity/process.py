"""`nginx-mesh-identity`: the identity server as a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import click
import msgspec

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.observe.logfilter import brief

from .config import IdentityConfig, mesh_settings, read_config
from .config import check as check_config
from .server.server import START_ERRORS, IdentityServer, open_authority

log = logging.getLogger(__name__)

DATA_DIR = Path("/var/lib/nginx-mesh-identity")
ADMIN_SOCKET = Path("/run/nginx-mesh-identity/admin.sock")


async def serve(config: IdentityConfig, settings: MeshSettings) -> None:
    """Run the server until SIGTERM or SIGINT. Raises one of START_ERRORS."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    directory = Path(config.identity.data_dir or DATA_DIR)
    authority = await asyncio.to_thread(open_authority, config.identity, settings, directory)
    server = IdentityServer(authority, config.identity)
    try:
        if config.identity.health_address is not None:
            await server.listen_health(config.identity.health_address)
        await server.start()
        await server.listen()
        await server.listen_admin(Path(config.identity.admin_socket or ADMIN_SOCKET))
        log.info("ready")
        await stopped.wait()
    finally:
        await server.close()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The configuration (YAML).",
)
@click.option("--check", is_flag=True, help="Only say whether the configuration is sound.")
@click.option(
    "--health-address",
    metavar="[HOST:]PORT|unix:PATH",
    help="Serve /metrics, /healthz and /readyz there; a port alone is on loopback. Wins over identity.healthAddress.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def main(path: Path, check: bool, health_address: str | None, log_level: str) -> None:
    """Serve SPIFFE identities to the agents of a mesh.

    \b
    Examples:
      nginx-mesh-identity --config identity.yaml
      nginx-mesh-identity --config identity.yaml --check
      nginx-meshctl identity show --socket /run/nginx-mesh-identity/admin.sock
    """
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("aiohttp.server").addFilter(brief)
    os.umask(0o077)
    try:
        config = read_config(path)
        if health_address is not None:
            identity = msgspec.structs.replace(config.identity, health_address=health_address)
            config = msgspec.structs.replace(config, identity=identity)
        settings = mesh_settings(config, MeshSettings())
        if check:
            check_config(config, settings)
        else:
            asyncio.run(serve(config, settings))
    except START_ERRORS as error:
        click.echo(f"error: {path}: {error}", err=True)
        sys.exit(1)
    if check:
        click.echo(f"{path} is sound")
