"""The state of a sidecar: the one document with everything that may change while the sidecar runs.

A state is a flat mapping from key to entry, so that a change is a small set of entries to set and keys to delete:

| key | entry |
|---|---|
| `settings` | `Settings` |
| `identity` | `Identity` (only ever sent to the sidecar it belongs to) |
| `inbound/<port>` | `Inbound`: one declared container port |
| `destination/<ip>:<port>` | `Destination`; IPv6 as `[::1]:80` |
| `cluster/<namespace>/<service>:<port>` or `cluster/<ip>:<port>` | `Cluster` |
| `split/<namespace>/<service>:<port>` | `Split`: where requests for a root Service's port go instead |
| `breaker/<namespace>/<service>:<port>` | `Breaker`: when nothing is sent to a Service's port |
| `probe/<path>` | `Probe`; the path kubelet asks for on 8895 or 8896, with its leading slash |

The sidecar's Lua validates the same shapes (sidecar/lua/mesh/schema.lua) and refuses an update whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from nginx_mesh.api.portprotocol import PortProtocol as PortProtocol
from nginx_mesh.api.values import LbMethod as LbMethod
from nginx_mesh.api.values import LogFormat as LogFormat
from nginx_mesh.api.values import LogLevel as LogLevel
from nginx_mesh.api.values import MtlsMode as MtlsMode

# Bounds of numbers. Integers up to 2**53 are exact in the sidecar's Lua.
Version = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Rate = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Requests = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
RequestsOrNodelay = Annotated[int, msgspec.Meta(ge=-1, le=2**31)]
Weight = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Errors = Annotated[int, msgspec.Meta(ge=1, le=10000)]
Timeout = Annotated[int, msgspec.Meta(ge=1000, le=2**31)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all state entries."""


class Settings(Entry, frozen=True, kw_only=True):
    """Settings of this sidecar. `client_max_body_size` is bytes, 0 for no limit.

    `mtls_mode` is effective for this pod: the mesh's mode, or the pod's annotation where that may override it.
    `labels` are put on every metric (pod, namespace, deployment|…, pod_template_hash).
    `addresses` are the pod's own IPs: a call to the pod's own endpoint is told from one to another pod by them.
    `sampler_ratio` is the share of new traces that are sampled, 0 to 1; None when trace headers are left as they are.
    """

    mtls_mode: MtlsMode
    trust_domain: str
    client_max_body_size: Bytes
    log_level: LogLevel
    log_format: LogFormat
    addresses: list[str]
    labels: dict[str, str]
    sampler_ratio: Ratio | None = None


class Identity(Entry, frozen=True, kw_only=True):
    """The pod's X.509-SVID. PEM: `svid` is the chain, leaf first; `bundle` all roots of the trust domain.

    `federated` are the bundles of other trust domains whose workloads may call and be called, by their names. A
    sidecar that cannot use one of them believes nobody of that trust domain, and logs why.
    """

    spiffe_id: str
    svid: str
    key: str
    bundle: str
    federated: dict[str, str] = {}

    def public(self) -> dict[str, Any]:
        """All of it but the private key."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "key"}

    def __repr__(self) -> str:
        return f"Identity(spiffe_id={self.spiffe_id!r}, key=<redacted>)"


class PathRule(Entry, frozen=True, kw_only=True):
    """One HTTPRouteGroup match, all given parts of which must hold. Empty `methods` means any.

    `path_regex` is a PCRE matched against the normalised path; header names are lower case.
    """

    path_regex: str = ""
    methods: list[str] = []
    headers: dict[str, str] = {}


class Grant(Entry, frozen=True, kw_only=True):
    """Callers (SPIFFE IDs) and what they may do; empty `matches` means everything. `target` names the TrafficTarget.

    With `tcp` it grants TCP connections alone, with `matches` requests alone.
    """

    target: str
    sources: list[str]
    matches: list[PathRule] = []
    tcp: bool = False


class Limit(Entry, frozen=True, kw_only=True):
    """A rate limit as nginx's limit_req: `rate` requests per 1000 s, `burst` and `delay` requests.

    `name` begins with that of the RateLimit ("namespace/name"); limits of one name count together, also on other ports.
    `delay` is -1 for nodelay. `sources` are SPIFFE IDs, `addresses` where their pods are: of each RateLimit's limits, a
    caller has the first that names both its ID and its address. No `sources` means every caller that no other limit of
    the port names so.
    """

    name: str
    rate: Rate
    burst: Requests = 0
    delay: RequestsOrNodelay = 0
    sources: list[str] = []
    addresses: list[str] = []
    matches: list[PathRule] = []


class Inbound(Entry, frozen=True, kw_only=True):
    """A declared container port. `protocols` has more than one member when Services disagree about it.

    `grants` None means every caller is allowed (allow mode without TrafficTarget); a list means only what it grants.
    """

    protocols: list[PortProtocol]
    grants: list[Grant] | None = None
    limits: list[Limit] = []


class Endpoint(Entry, frozen=True, kw_only=True):
    """One pod address and port of a cluster.

    `tls` says whether this client speaks mTLS to it; then `spiffe_id` is the identity it must prove.
    `labels` are dst_pod, dst_service, dst_namespace, dst_deployment|… for metrics.
    """

    tls: bool
    spiffe_id: str = ""
    labels: dict[str, str] = {}


class Cluster(Entry, frozen=True, kw_only=True):
    """Endpoints ("ip:port" → Endpoint) that one balancing decision chooses from."""

    lb_method: LbMethod
    endpoints: dict[str, Endpoint]


class Destination(Entry, frozen=True, kw_only=True):
    """What an address and port that the application dials mean. `cluster` is the name behind `cluster/`.

    `service` is the Service's port ("namespace/service:port") whose split and breaker apply, where `cluster` is not:
    pods of headless Services.
    """

    protocol: PortProtocol
    cluster: str
    service: str = ""


class SplitBackend(Entry, frozen=True, kw_only=True):
    """A cluster and its share of the sum of weights."""

    cluster: str
    weight: Weight


class Split(Entry, frozen=True, kw_only=True):
    """Requests that any of `matches` fits (no matches: all of them) go to `backends` by weight.

    `split` names the TrafficSplit ("namespace/name").
    """

    split: str
    backends: list[SplitBackend]
    matches: list[PathRule] = []


class Breaker(Entry, frozen=True, kw_only=True):
    """`errors` failures (1 to 10000) within `timeout_ms` (1000 or more) open the circuit for as long.

    `breaker` names the CircuitBreaker ("namespace/name"), `fallback` the cluster that answers meanwhile, "" for none.
    """

    breaker: str
    errors: Errors
    timeout_ms: Timeout
    fallback: str = ""


class Probe(Entry, frozen=True, kw_only=True):
    """What a health check on a redirect path stands for: the pod's own port, and for HTTP(S) what to ask it.

    `host` is the Host header, empty for the pod's address; `headers` are the probe's own. `tcp` only connects.
    """

    scheme: Literal["http", "https", "tcp"]
    port: Port
    path: str = "/"
    headers: dict[str, str] = {}
    host: str = ""


StateEntry = Settings | Identity | Inbound | Destination | Cluster | Split | Breaker | Probe
State = dict[str, StateEntry]


def cluster_key(name: str) -> str:
    """The key of the cluster that a Destination names."""
    return f"cluster/{name}"


class Update(msgspec.Struct, frozen=True, kw_only=True, rename={"set_": "set"}):
    """What goes over the unix socket: PUT /v1/state.

    `base` is the version this update builds on; None replaces everything. The sidecar answers 200 with
    {"version": N} when every worker runs `version`; 409 with {"version": M} when `base` is not what it has
    (the pusher then sends a full state); 400 with {"error": …, "key": …} when any entry is malformed, in which case
    nothing changed. `set_` are whole entries; `endpoints` changes single endpoints of clusters (None deletes one), by
    the cluster's name without `cluster/`, applied after `set_`. Entries that sidecars share come encoded, so that the
    mesh is not encoded once per sidecar.
    """

    base: Version | None
    version: Version
    set_: Mapping[str, StateEntry | msgspec.Raw] = {}
    delete: list[str] = []
    endpoints: dict[str, dict[str, Endpoint | None]] = {}
