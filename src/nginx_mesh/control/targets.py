"""The sidecars of a mesh as scrape targets of a Prometheus, and the metrics of each.

| request | |
|---|---|
| GET `/mesh/targets` | the sidecars, as Prometheus' http_sd_configs want them |
| GET `/mesh/pods/NAMESPACE/NAME/metrics` | what a sidecar exposes on its port 8887 |

Targets have addresses of the pod network. `nginx-meshctl local metrics` answers both requests on the machine's network.
"""

from __future__ import annotations

from aiohttp import web

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.catalog.topology import Topology
from nginx_mesh.observe.responses import json_response
from nginx_mesh.protocol.control import SidecarUnreachableError

from .interfaces import Sidecars

METRICS_PORT = 8887
_TIMEOUT_SECONDS = 5.0


class Targets:
    """Routes for the mesh's API."""

    def __init__(self, topology: Topology, sidecars: Sidecars) -> None:
        self._topology = topology
        self._sidecars = sidecars

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [
            web.get("/mesh/targets", self._list),
            web.get("/mesh/pods/{namespace}/{name}/metrics", self._metrics),
        ]

    async def _list(self, _: web.Request) -> web.Response:
        groups = [
            {"targets": [_address(pod.addresses[0])], "labels": _labels(pod)}
            for pod in map(self._topology.pod, self._sidecars.live())
            if pod is not None and pod.addresses
        ]
        return json_response(groups)

    async def _metrics(self, request: web.Request) -> web.Response:
        pod = ObjectKey(Pod.KIND, request.match_info["namespace"], request.match_info["name"])
        if pod not in self._sidecars.live():
            raise web.HTTPNotFound(text="there is no pod of that name with a sidecar")
        try:
            text = await self._sidecars.metrics(pod, _TIMEOUT_SECONDS)
        except SidecarUnreachableError as error:
            raise web.HTTPServiceUnavailable(text=f"the sidecar does not answer: {error}") from None
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _address(host: str) -> str:
    return f"[{host}]:{METRICS_PORT}" if ":" in host else f"{host}:{METRICS_PORT}"


def _labels(pod: PodRecord) -> dict[str, str]:
    # To Prometheus, `job` is the job that scrapes.
    return {name: value for name, value in pod.metric_labels.items() if name != "job"}
