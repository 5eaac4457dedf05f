"""What a viewer of `nginx-meshctl tap` wants to see, as the parameters of GET `/mesh/tap` say it. Pure.

| parameter | |
|---|---|
| `of` | the workload to watch: [NAMESPACE/][KIND/]NAME |
| `to`, `from` | only requests to, or from, this workload or Service |
| `namespace` | the namespace of names that have none |
| `method` | only requests with this method |
| `path_prefix` | only requests whose path begins so |
| `status` | only requests with this status, such as 404, or class of status, such as 5xx |
| `max_rps` | how many requests a second to show at most, 1 to 1000 |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from nginx_mesh.api import discovery
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.status import StatusError
from nginx_mesh.api.workloadkinds import WORKLOADS
from nginx_mesh.catalog.topology import Topology
from nginx_mesh.protocol.control import Tap
from nginx_mesh.protocol.report import Report

MAX_RPS = 1000
_KINDS = (*WORKLOADS, "Service")
_MAX_PEERS = 500
_STATUS = re.compile(r"([1-5])xx|([1-5][0-9][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class TapQuery:
    """The requests that a viewer wants to see: those of the pods behind `of`.

    `to` limits the requests that these pods send, `origin` those that they receive, to one workload or Service on the
    other side. `status` is the lowest and the highest that is wanted. `max_rps` is requests a second.
    """

    of: ObjectKey
    to: ObjectKey | None = None
    origin: ObjectKey | None = None
    method: str = ""
    path_prefix: str = ""
    status: tuple[int, int] = (0, 999)
    max_rps: int = 100

    def matches(self, report: Report, topology: Topology) -> bool:
        """Whether a report of one of the watched pods is of a request that is wanted."""
        low, high = self.status
        if self.method not in ("", report.method) or not low <= report.status <= high:
            return False
        if not report.path.startswith(self.path_prefix):
            return False
        other = self.origin if report.server else self.to
        if other is None:
            return self.origin is None and self.to is None
        addresses = addresses_of(other, topology)
        seen = (report.client,) if report.server else (host_of(report.upstream), host_of(report.destination))
        return any(address in addresses for address in seen)

    def tap(self, topology: Topology, seconds: int) -> Tap:
        """What the sidecars of the watched pods are to report for so many seconds: at least all that matches."""
        low, high = self.status
        peers: set[str] = set()
        for other in (self.to, self.origin):
            peers |= set() if other is None else addresses_of(other, topology)
        return Tap(
            seconds=seconds,
            max_rps=self.max_rps,
            method=self.method,
            path=self.path_prefix,
            lowest=low,
            highest=high,
            peers=sorted(peers) if len(peers) <= _MAX_PEERS else [],
        )


def read_query(query: Mapping[str, str], topology: Topology) -> TapQuery:
    """The query that the parameters of a request make. Raises StatusError for a parameter that is not valid."""
    namespace = query.get("namespace") or "default"

    def find(parameter: str) -> ObjectKey | None:
        return _find(parameter, query[parameter], namespace, topology) if query.get(parameter) else None

    of = find("of")
    if of is None:
        raise StatusError("BadRequest", "of: is missing")
    rate = query.get("max_rps", "100")
    if not re.fullmatch("[0-9]{1,4}", rate) or not 1 <= int(rate) <= MAX_RPS:
        raise StatusError("BadRequest", f'max_rps: "{rate}" is not a number from 1 to {MAX_RPS}')
    return TapQuery(
        of=of,
        to=find("to"),
        origin=find("from"),
        method=query.get("method", "").upper()[:64],
        path_prefix=query.get("path_prefix", "")[:1024],
        status=_status_range(query.get("status", "")),
        max_rps=int(rate),
    )


def addresses_of(key: ObjectKey, topology: Topology) -> AbstractSet[str]:
    """The IP addresses of the pods of a workload or behind a Service, and the Service's own."""
    service = topology.service(key)
    pods = [topology.pod(pod) for pod in topology.pods_behind(key)]
    found = {address for pod in pods if pod is not None for address in pod.addresses}
    return found if service is None else found.union(service.vips)


def host_of(address: str) -> str:
    """The IP of "ip:port" or "[ip]:port"."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def _find(parameter: str, name: str, namespace: str, topology: Topology) -> ObjectKey:
    """The workload or Service of a name: NAME, KIND/NAME, NAMESPACE/NAME or NAMESPACE/KIND/NAME."""
    parts = name.split("/")
    if not all(parts) or len(parts) > 3:
        raise StatusError("BadRequest", f'{parameter}: "{name}" is not [NAMESPACE/][KIND/]NAME')
    kinds: Iterable[str] = _KINDS
    if len(parts) > 1 and (kind := discovery.find(parts[-2])) is not None:
        if kind.KIND not in _KINDS:
            raise StatusError("BadRequest", f"{parameter}: a {kind.KIND} has no requests")
        kinds = (kind.KIND,)
        parts.pop(-2)
    if len(parts) > 2:
        raise StatusError("BadRequest", f'{parameter}: there is no kind "{parts[-2]}"')
    where, last = (parts[0], parts[1]) if len(parts) == 2 else (namespace, parts[0])
    for kind_name in kinds:
        key = ObjectKey(kind_name, where, last)
        if topology.pods_behind(key):
            return key
    raise StatusError("NotFound", f"{parameter}: there is no pod of {where}/{last}; try local get pods -A")


def _status_range(text: str) -> tuple[int, int]:
    """The lowest and the highest of a status or of a class of them; all of them for ""."""
    if not text:
        return 0, 999
    found = _STATUS.fullmatch(text.lower())
    if found is None:
        raise StatusError("BadRequest", f'status: "{text}" is neither a status such as 404 nor a class such as 5xx')
    if found[1]:
        return int(found[1]) * 100, int(found[1]) * 100 + 99
    return int(found[2]), int(found[2])
