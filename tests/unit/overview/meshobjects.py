"""Objects and traffic of a small mesh: a client that calls two versions of a web application."""

from __future__ import annotations

from nginx_mesh.api.pods import Pod
from nginx_mesh.overview.edges import EdgeTraffic, Traffic
from nginx_mesh.traffic.connections import Connections
from nginx_mesh.traffic.flows import Counts
from nginx_mesh.traffic.graph import Edge, GraphNode
from tests.unit.compile.objects import pod, port, service

CLIENT, WEB_V1, WEB_V2 = (GraphNode("default", "deployment", name) for name in ("client", "web-v1", "web-v2"))


def owned(name: str, deployment: str, ip: str, *, meshed: bool = True, ready: bool = True) -> Pod:
    """A pod of a Deployment, with the label app by which Services select it."""
    labels = {"nsm.nginx.com/deployment": deployment, "app": deployment.partition("-")[0], "version": deployment}
    return pod(name, labels=labels, ips=[ip], meshed=meshed, ready=ready, account=deployment)


OBJECTS = (
    owned("client-1", "client", "10.0.0.1"),
    owned("web-v1-1", "web-v1", "10.0.0.2"),
    owned("web-v1-2", "web-v1", "10.0.0.3"),
    owned("web-v2-1", "web-v2", "10.0.0.4"),
    service("web", port(80, target=8080), vips=["10.96.0.1"]),
    service("web-v1", port(80, target=8080), vips=["10.96.0.2"], selector={"version": "web-v1"}),
    service("web-v2", port(80, target=8080), vips=["10.96.0.3"], selector={"version": "web-v2"}),
)


def requests(rate: float, *, mtls: float = 0.0, failed: float = 0.0, services: tuple[str, ...] = ()) -> Edge:
    """Requests per second, all within 10 ms: `failed` of them failed, `mtls` of them were sent by mTLS."""
    return Edge(Counts(rate - failed, failed, {10.0: rate, float("inf"): rate}, mtls), services=set(services))


def connections(rate: float, *, mtls: float = 0.0, failed: float = 0.0) -> Edge:
    """Connections per second that send 100 bytes each."""
    return Edge(tcp=Connections(rate, failed, mtls, 100 * rate, 0))


def traffic(window: Edge, recent: Edge | None = None, server: GraphNode = WEB_V1) -> Traffic:
    """The traffic of one edge from the client; the recent traffic is like that of the window unless given."""
    return {(CLIENT, server): EdgeTraffic(window, window if recent is None else recent)}
