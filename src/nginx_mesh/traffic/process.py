"""`nginx-mesh-metrics`: the Traffic Metrics API over a Prometheus, as Kubernetes aggregates it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

import click
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Counter

from nginx_mesh.api.errors import FieldError, one_line
from nginx_mesh.api.values import HostPort, parse_host_port
from nginx_mesh.observe import MonitoringEndpoints
from nginx_mesh.observe.logfilter import brief
from nginx_mesh.observe.responses import json_response, status_response

from . import documents
from .frontproxy import FrontProxy, UnauthorizedError
from .prometheus import Prometheus
from .server import TrafficMetrics, statuses
from .serving import CertificateFiles, ServingTls, WorkloadCertificate

log = logging.getLogger(__name__)

WORKLOAD_API = Path("/run/spire/sockets/agent.sock")
_REFRESH_SECONDS = 10.0

_requests = Counter("nginx_mesh_traffic_metrics_requests", "Requests answered, by status.", ["code"])


def application(prometheus: Prometheus, front_proxy: FrontProxy, endpoints: MonitoringEndpoints) -> web.Application:
    """The API, for the front proxy only, with metrics, health and readiness of the process, for everybody."""
    routes = endpoints.routes()
    open_to_all = {route.path for route in routes}

    @web.middleware
    async def authenticated(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in open_to_all:
            return await handler(request)
        certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
        try:
            user = front_proxy.user(certificate, request.headers, time.time())
        except UnauthorizedError as error:
            log.debug("refused %s: %s", request.remote, error)
            return status_response(401, "Unauthorized", f"Unauthorized: {error}")
        log.debug("%s %s for %s", request.method, one_line(request.path), one_line(user))
        return await handler(request)

    app = web.Application(middlewares=[_counted, statuses, authenticated])
    app.add_routes(routes)
    app.router.add_get("/apis", _groups)
    app.add_subapp(documents.ROOT, TrafficMetrics(prometheus.flows).application())
    return app


async def serve(
    address: HostPort,
    prometheus: Prometheus,
    front_proxy: FrontProxy,
    serving: ServingTls,
    workload: tuple[WorkloadCertificate, Path] | None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    `workload` is the certificate of `serving`, with the socket of the Workload API that gives it; None when it comes
    from files. Raises FieldError and OSError when the server cannot start.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    serving.check_client_ca()
    tasks = [asyncio.create_task(_refresh(serving))]
    if workload is not None:
        from nginx_mesh.identity.agent.spire.workload import WorkloadClient  # gRPC is heavy

        certificate, socket = workload
        tasks.append(asyncio.create_task(WorkloadClient(socket, certificate.update).run()))
    elif reason := serving.refresh():
        raise FieldError("--tls-cert-file", reason)
    # Readiness does not depend on Prometheus: an APIService that is not available disturbs other parts of Kubernetes,
    # such as the deletion of namespaces.
    app = application(prometheus, front_proxy, MonitoringEndpoints({"certificate": serving.refresh}))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        await web.TCPSite(runner, address.host, address.port, ssl_context=serving.live()).start()
        log.info("serving at https://%s", address)
        await stopped.wait()
    finally:
        await runner.cleanup()
        await prometheus.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _refresh(serving: ServingTls) -> None:
    """Load changed files also while no client connects, so that the log tells of a bad file early."""
    while True:
        serving.refresh()
        await asyncio.sleep(_REFRESH_SECONDS)


async def _groups(_: web.Request) -> web.Response:
    return json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": [documents.group()]})


@web.middleware
async def _counted(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    _requests.labels(str(response.status)).inc()
    return response


def _address(_ctx: click.Context, param: click.Parameter, text: str) -> HostPort:
    try:
        return parse_host_port(text)
    except FieldError as error:
        raise click.BadParameter(str(error), param=param) from None


def _comma_separated(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--prometheus-address",
    callback=_address,
    required=True,
    metavar="HOST:PORT",
    help="The Prometheus that scrapes the sidecars, as SERVICE.NAMESPACE:PORT.",
)
@click.option(
    "--listen",
    callback=_address,
    default="0.0.0.0:8443",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to serve.",
)
@click.option(
    "--tls-cert-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The certificate to serve with (PEM, with intermediates), instead of one of the mesh's CA.",
)
@click.option("--tls-private-key-file", type=click.Path(path_type=Path), metavar="FILE", help="Its key (PEM).")
@click.option(
    "--workload-api",
    type=click.Path(path_type=Path),
    default=WORKLOAD_API,
    show_default=True,
    metavar="PATH",
    help="The socket of the SPIFFE Workload API, which gives the certificate of the mesh's CA.",
)
@click.option(
    "--requestheader-client-ca-file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The CA of front proxies (PEM).",
)
@click.option(
    "--requestheader-allowed-names",
    multiple=True,
    callback=_comma_separated,
    metavar="NAME,...",
    help="Common names of front proxies; without it, any of that CA.",
)
@click.option(
    "--requestheader-username-headers",
    multiple=True,
    callback=_comma_separated,
    default=["X-Remote-User"],
    show_default=True,
    metavar="NAME,...",
    help="Headers in which they name the user.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def main(
    prometheus_address: HostPort,
    listen: HostPort,
    tls_cert_file: Path | None,
    tls_private_key_file: Path | None,
    workload_api: Path,
    requestheader_client_ca_file: Path,
    requestheader_allowed_names: tuple[str, ...],
    requestheader_username_headers: tuple[str, ...],
    log_level: str,
) -> None:
    """Serve SMI traffic metrics to Kubernetes' API aggregation, computed by a Prometheus over 30 seconds.

    Certificates and CAs are read anew when they change. /healthz, /readyz and /metrics answer anybody.

    \b
    Example:
      nginx-mesh-metrics --prometheus-address prometheus.monitoring:9090 \\
          --requestheader-client-ca-file front-proxy-ca.crt --requestheader-allowed-names front-proxy-client
    """
    if (tls_cert_file is None) != (tls_private_key_file is None):
        raise click.UsageError("--tls-cert-file and --tls-private-key-file go together")
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("aiohttp.server").addFilter(brief)
    os.umask(0o077)
    workload: tuple[WorkloadCertificate, Path] | None = None
    if tls_cert_file is not None and tls_private_key_file is not None:
        serving = ServingTls(CertificateFiles(tls_cert_file, tls_private_key_file), requestheader_client_ca_file)
    else:
        workload = WorkloadCertificate(), workload_api
        serving = ServingTls(workload[0], requestheader_client_ca_file)
    front_proxy = FrontProxy(frozenset(requestheader_allowed_names), requestheader_username_headers)
    try:
        asyncio.run(serve(listen, Prometheus(prometheus_address), front_proxy, serving, workload))
    except (FieldError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
