"""The traffic of a local mesh, as the Prometheus of its settings knows it, or else as the daemon has scraped it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import aiohttp

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.values import HostPort
from nginx_mesh.observe.tasks import TaskSet
from nginx_mesh.traffic.flows import Flow
from nginx_mesh.traffic.measure import TrafficQuery
from nginx_mesh.traffic.prometheus import Prometheus
from nginx_mesh.traffic.scraper import Scraper
from nginx_mesh.traffic.server import WINDOW, SourceError

from .net import netns


class LocalTraffic:
    """A source for the Traffic Metrics API.

    `prometheus_address` returns the address of Prometheus in the settings, None when there is none. Its host is a
    Service of the mesh (`name.namespace`), or an IP address in the machine's own network namespace, of which `machine`
    is a descriptor. `lookup` finds objects.
    """

    def __init__(
        self,
        scraper: Scraper,
        prometheus_address: Callable[[], HostPort | None],
        lookup: Callable[[ObjectKey], Resource | None],
        machine: int,
    ) -> None:
        self._scraper = scraper
        self._prometheus_address = prometheus_address
        self._lookup = lookup
        self._machine = machine
        self._clients: dict[tuple[HostPort, str], Prometheus] = {}
        self._tasks = TaskSet()

    async def flows(self, question: TrafficQuery) -> Sequence[Flow]:
        """The flows that answer a question, as traffic.server.Source."""
        address = self._prometheus_address()
        if address is None:
            return await self._scraper.flows(WINDOW)
        return await self._client(address, self._virtual_ip(address)).flows(question)

    async def close(self) -> None:
        """End all connections."""
        await self._tasks.close()
        for client in self._clients.values():
            await client.close()

    def _client(self, address: HostPort, virtual_ip: str) -> Prometheus:
        if (address, virtual_ip) not in self._clients:
            for former in self._clients.values():
                self._tasks.start(former.close(), "close the connections to the former Prometheus")
            client = (
                Prometheus(HostPort(virtual_ip, address.port), name=str(address))
                if virtual_ip
                else Prometheus(address, connector=self._connector)
            )
            self._clients = {(address, virtual_ip): client}
        return self._clients[address, virtual_ip]

    def _virtual_ip(self, address: HostPort) -> str:
        """The address of the Service that the host names, "" when it is an IP address. Raises SourceError."""
        try:
            ip_address(address.host)
            return ""
        except ValueError:
            name, namespace = address.host.split(".")[:2]
        service = self._lookup(ObjectKey("Service", namespace, name))
        virtual_ip: str = service["spec"].get("clusterIP", "") if service is not None else ""
        if virtual_ip in ("", "None"):
            raise SourceError(f'prometheusAddress: no Service "{name}" of namespace "{namespace}" has an address')
        return virtual_ip

    def _connector(self) -> aiohttp.BaseConnector:
        return aiohttp.TCPConnector(socket_factory=self._socket)

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        # A socket stays in the network namespace that it was made in.
        return netns.run_in_thread(lambda: socket.socket(*info[:3]), self._machine)
