"""The one client of a mesh's control plane, which every command for operators uses.

`ControlPlane` says what can be asked. How the questions travel is the matter of a `Transport`: today that is a unix
socket of the local mesh's daemon (`UnixHttpClient`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from .errors import ControlPlaneUnreachableError

if TYPE_CHECKING:
    from nginx_mesh.traffic.measure import TrafficQuery

Document = dict[str, Any]
"""A JSON object."""

SUPPORT_DOCUMENTS: Mapping[str, str] = {
    "daemon/status.json": "/mesh/status",
    "daemon/services.json": "/mesh/services",
    "daemon/config.json": "/mesh/config",
    "daemon/version.json": "/mesh/version",
    "daemon/readyz.json": "/readyz",
    "daemon/readiness.json": "/mesh/readiness",
    "daemon/events.json": "/api/v1/events",
    "identity/provider.json": "/mesh/identity",
    "identity/workloads.json": "/mesh/identities",
    "identity/authority.json": "/identity",
    "identity/bundles.json": "/identity/bundles",
    "identity/agents.json": "/identity/agents",
    "identity/federation.json": "/identity/federation",
}
"""The documents of a control plane that a support package holds: names in the package, and their paths."""


class Transport(Protocol):
    """Carries requests to a server. Every method raises ApiError and ControlPlaneUnreachableError."""

    def get(self, path: str, **query: object) -> Any:
        """GET a document. Parameters that are None are left out of the query."""

    def request(self, method: str, path: str, body: object = None, *, query: Mapping[str, object] | None = None) -> Any:
        """Send `body` as JSON and return the decoded answer."""

    def stream(self, path: str, **query: object) -> Iterator[bytes]:
        """GET, and yield the bytes as they come."""


class IdentityAuthority:
    """Asks the authority that issues SVIDs: the one in a mesh's control plane, or an identity server.

    Every method raises as the Transport does. Times in answers are seconds since the epoch.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def facts(self) -> Document:
        """Return its settings, its CAs (`authorities`, `retired`) and the registration `entries`."""
        return _document(self._transport.get("/identity"))

    def bundles(self) -> list[Document]:
        """Return the trust bundles, its own and those of federated trust domains, as PEM and as SPIFFE documents."""
        return _documents(self._transport.get("/identity/bundles"))

    def mint_x509_svid(self, spiffe_id: str, csr: str, dns_names: Sequence[str], ttl: int) -> Document:
        """Issue an X.509-SVID; `csr` is DER in base64, `ttl` is seconds, 0 for that of workloads.

        The answer has `chain` and `bundle` in PEM, and `not_after`.
        """
        wanted = {"spiffe_id": spiffe_id, "csr": csr, "dns_names": dns_names, "ttl": ttl}
        return _document(self._transport.request("POST", "/identity/mint", wanted))

    def mint_jwt_svid(self, spiffe_id: str, audience: Sequence[str], ttl: int) -> str:
        """Issue a JWT-SVID; `ttl` is seconds, 0 for that of workloads."""
        wanted = {"spiffe_id": spiffe_id, "audience": audience, "ttl": ttl}
        return str(self._transport.request("POST", "/identity/mint-jwt", wanted)["token"])

    def rotate_ca(self, overlap: int) -> Document:
        """Prepare a CA that signs after `overlap` seconds; return its `id` and when it signs (`activate_at`)."""
        return _document(self._transport.request("POST", "/identity/rotate", {"overlap": overlap}))

    def create_join_token(self, agent: str, ttl: int, *, registrar: bool) -> Document:
        """Make a join token that is good for `ttl` seconds; return the `token` and the SPIFFE ID of the `agent`."""
        wanted = {"name": agent, "ttl": ttl, "registrar": registrar}
        return _document(self._transport.request("POST", "/identity/tokens", wanted))

    def agents(self) -> list[Document]:
        """Return the attested agents."""
        return _documents(self._transport.get("/identity/agents"))

    def ban_agent(self, name: str, *, banned: bool) -> None:
        """Refuse an agent, or accept it again."""
        self._transport.request("PATCH", f"/identity/agents/{quote(name, safe='')}", {"banned": banned})

    def evict_agent(self, name: str) -> None:
        """Forget an agent."""
        self._transport.request("DELETE", f"/identity/agents/{quote(name, safe='')}")

    def federations(self) -> list[Document]:
        """Return the federated trust domains."""
        return _documents(self._transport.get("/identity/federation"))

    def federate(self, trust_domain: str, relationship: Mapping[str, str]) -> None:
        """Federate with a trust domain, or change how its bundle is fetched.

        `relationship` has `endpoint_url`, `profile`, `endpoint_spiffe_id` and `bundle`, each of which may be "".
        """
        self._transport.request("PUT", f"/identity/federation/{quote(trust_domain, safe='')}", relationship)

    def end_federation(self, trust_domain: str) -> None:
        """Federate with a trust domain no longer."""
        self._transport.request("DELETE", f"/identity/federation/{quote(trust_domain, safe='')}")


class ControlPlane:
    """Asks a mesh's control plane. Every method raises as the Transport does."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.identity_authority = IdentityAuthority(transport)
        """The authority in this control plane; it refuses everything where another one issues the SVIDs."""

    def status(self) -> Document:
        """Return whether the mesh is well (`well`), and why not (`problems`, `warnings`)."""
        return _document(self._transport.get("/mesh/status"))

    def services(self, namespace: str | None = None) -> list[Document]:
        """Return the Services of the mesh, those of one namespace or of all, with their `upstreams`."""
        return _documents(self._transport.get("/mesh/services", namespace=namespace))

    def config(self) -> Document:
        """Return the settings in force."""
        return _document(self._transport.get("/mesh/config"))

    def versions(self) -> dict[str, str]:
        """Return the version of each component."""
        return _document(self._transport.get("/mesh/version"))

    def traffic(self, question: TrafficQuery) -> Document:
        """Return the TrafficMetricsList that answers the question."""
        return _document(self._transport.get(traffic_path(question)))

    def tap(
        self,
        of: str,
        *,
        namespace: str,
        to: str | None = None,
        origin: str | None = None,
        method: str | None = None,
        path_prefix: str | None = None,
        status: str | None = None,
        max_rps: int,
    ) -> Iterator[bytes]:
        """Yield a line of JSON for each request of `of`, a workload, Service or pod, as the request ends.

        `to` and `origin` name its peers; `max_rps` bounds the requests of a second. Where some were left out, a line
        with `skipped` says how many.
        """
        filters = {"method": method, "path_prefix": path_prefix, "status": status, "max_rps": max_rps}
        return lines(
            self._transport.stream("/mesh/tap", of=of, to=to, **{"from": origin}, **filters, namespace=namespace)
        )

    def explain(
        self, *, origin: str, to: str, namespace: str, method: str, path: str, headers: Sequence[tuple[str, str]]
    ) -> Document:
        """Return what would become of a request: the `summary`, and the `steps` at the caller and at those called."""
        inquiry = {
            "from": origin,
            "to": to,
            "namespace": namespace,
            "method": method,
            "path": path,
            "headers": headers,
        }
        return _document(self._transport.request("POST", "/mesh/explain", inquiry))

    def identity_provider(self) -> Document:
        """Return who issues the SVIDs of the mesh: `provider`, `address`, `trust_domain`."""
        return _document(self._transport.get("/mesh/identity"))

    def identities(self) -> list[Document]:
        """Return the identities of the mesh's pods, and the SVIDs that the agents hold for them."""
        return _documents(self._transport.get("/mesh/identities"))

    def support_document(self, name: str) -> Any:
        """Return one of SUPPORT_DOCUMENTS."""
        return self._transport.get(SUPPORT_DOCUMENTS[name])

    def metrics(self) -> bytes:
        """Return the metrics of the control plane itself, in the text format of Prometheus."""
        return b"".join(self._transport.stream("/metrics"))

    def sidecar_states(self) -> Iterator[bytes]:
        """Yield, for a support package, a line of JSON with `name` and `content` for each part of sidecars' states."""
        return lines(self._transport.stream("/mesh/supportpkg"))


def traffic_path(question: TrafficQuery) -> str:
    """Return where the Traffic Metrics API has the answer to a question."""
    from nginx_mesh.traffic.documents import API_VERSION

    kind, name = question.kind, quote(question.name, safe="")
    scope = f"namespaces/{quote(question.namespace, safe='')}/{kind.plural}" if kind.namespaced else kind.plural
    return f"/apis/{API_VERSION}/{scope}" + (f"/{name}/edges" if name else "")


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Put the lines together that come in chunks. Empty lines, and a last one that does not end, are left out."""
    rest = b""
    for chunk in chunks:
        *ended, rest = (rest + chunk).split(b"\n")
        yield from (line for line in ended if line)


def _document(answer: Any) -> Document:
    if not isinstance(answer, dict):
        raise ControlPlaneUnreachableError("what it answers is no JSON object")
    return answer


def _documents(answer: Any) -> list[Document]:
    if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
        raise ControlPlaneUnreachableError("what it answers is no list of JSON objects")
    return answer
