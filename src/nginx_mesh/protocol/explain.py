"""What a sidecar is asked about a request that nobody sends, and what it answers (on its socket explain.sock).

The request is sent just as it would be sent, so that the sidecar reads its path and headers as it reads others. Where
it would go and who would send it is in a PROXY protocol preamble before it, which only that socket takes.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Literal

import msgspec

from nginx_mesh.api.errors import FieldError

Direction = Literal["outbound", "inbound"]
Carried = Literal["http", "tcp"]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY, _TCP4, _TCP6 = 0x21, 0x11, 0x21
_DIRECTION, _PROTOCOL, _PEER = 0xE0, 0xE1, 0xE2
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[\x21-\x7e]*")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What nginx does not send on (ngx_http_proxy_module's own headers); "Connection" and "Upgrade" are the sidecar's.
_HOP_BY_HOP = {"keep-alive", "transfer-encoding", "te", "expect", "connection"}
_NO_UPGRADE = re.compile(r"h2c|http/", re.IGNORECASE)
_GRPC = "application/grpc"


class Request(msgspec.Struct, frozen=True):
    """An HTTP request; headers in the order in which they are sent."""

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        """Raise FieldError when it cannot be sent as it is."""
        if not _TOKEN.fullmatch(self.method) or len(self.method) > 100:
            raise FieldError("method", f'"{self.method}" is not the name of a method')
        if not _TARGET.fullmatch(self.path):
            raise FieldError("path", f'"{self.path}" is not a path: it begins with "/", without spaces, in ASCII')
        for name, value in self.headers:
            if not _TOKEN.fullmatch(name):
                raise FieldError("headers", f'"{name}" is not the name of a header')
            if not _VALUE.fullmatch(value):
                raise FieldError("headers", f"{name}: line breaks and control characters cannot be sent")

    def header(self, name: str) -> str:
        """The first value of a header, "" when there is none."""
        return next((value for own, value in self.headers if own.lower() == name), "")

    @property
    def is_grpc(self) -> bool:
        """Whether refusals are in gRPC's words."""
        return self.header("content-type").startswith(_GRPC)

    def with_host(self, host: str) -> Request:
        """The same with a Host header, if it has none."""
        return self if self.header("host") else msgspec.structs.replace(self, headers=(("Host", host), *self.headers))

    def forwarded(self) -> Request:
        """The same as a sidecar sends it on."""
        kept = [(name, value) for name, value in self.headers if name.lower() not in _HOP_BY_HOP]
        upgrade = self.header("upgrade")
        if self.is_grpc or _NO_UPGRADE.search(upgrade):
            kept = [(name, value) for name, value in kept if name.lower() != "upgrade"]
        if self.is_grpc:
            kept.append(("TE", "trailers"))
        elif upgrade and not _NO_UPGRADE.search(upgrade):
            kept.append(("Connection", "upgrade"))
        return msgspec.structs.replace(self, headers=tuple(kept))


class Question(msgspec.Struct, frozen=True):
    """What a sidecar is asked: of a request (for TCP, a connection) to `ip` and `port`, from `source`.

    `peer` is the SPIFFE ID that the caller proves by mTLS, "" when it proves none, None when it speaks plaintext.
    """

    direction: Direction
    ip: str
    port: int
    source: str
    carried: Carried = "http"
    peer: str | None = None
    request: Request = Request()


class Refusal(msgspec.Struct, frozen=True):
    """What a request gets that does not pass; TCP connections are closed, without a `status`."""

    reason: str
    status: int | None = None
    grpc_status: int | None = None


class Circuit(msgspec.Struct, frozen=True):
    """A service's circuit breaker as it is; `wait` is the milliseconds until it lets a request pass."""

    service: str
    state: Literal["closed", "open", "half-open"]
    wait: int
    breaker: str = ""
    fallback: str = ""


class Reached(msgspec.Struct, frozen=True):
    """An endpoint; `down` is the milliseconds for which it is passed over, as it failed."""

    address: str
    tls: bool
    spiffe_id: str = ""
    down: int = 0


class Branch(msgspec.Struct, frozen=True):
    """A way that a request may go. `branches` is how many a split offers, 0 where none is applied."""

    branches: int
    weight: int
    usable: bool
    name: str
    cluster: str
    breakers: list[Circuit] = []
    refusal: Refusal | None = None
    lb_method: str = ""
    endpoints: list[Reached] = []


class Meaning(msgspec.Struct, frozen=True):
    """What an address means to the sidecar."""

    protocol: str
    cluster: str
    service: str


class Share(msgspec.Struct, frozen=True):
    """A backend of a split."""

    cluster: str
    weight: int


class Split(msgspec.Struct, frozen=True):
    """The split of a service; `conditional` when it is for some requests only."""

    split: str
    conditional: bool
    backends: list[Share]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Who was asked. `version` is 0 when it has no state."""

    version: int
    svid_expires: float
    mtls_mode: str = ""
    spiffe_id: str = ""


class Outgoing(Asked, frozen=True, kw_only=True):
    """What the caller's sidecar does. Without a `destination` it does not know the address."""

    destination: Meaning | None = None
    split: Split | None = None
    branches: list[Branch] = []


class Check(msgspec.Struct, frozen=True):
    """Something that a request has to pass."""

    check: Literal["state", "identity", "mode", "port", "access", "body"]
    refusal: Refusal | None = None


class Target(msgspec.Struct, frozen=True):
    """A TrafficTarget that speaks of the port."""

    target: str
    names_caller: bool
    has_rules: bool


class Limit(msgspec.Struct, frozen=True):
    """A limit that the request is taken into: rate in requests per 1000 s, the rest in thousandths and milliseconds."""

    name: str
    ratelimit: str
    rate: int
    burst: int
    delay: int
    excess: int
    wait: int
    admits: bool


class Limited(msgspec.Struct, frozen=True):
    """The RateLimit that refuses the request, or lets it `wait` longest (milliseconds)."""

    ratelimit: str
    wait: int = 0
    refusal: Refusal | None = None


class Incoming(Asked, frozen=True, kw_only=True):
    """What the called sidecar does. `closed` is why the connection ends before any request is looked at.

    Unless it is `restricted`, everybody may do everything.
    """

    peer: str | None = None
    protocols: list[str] = []
    closed: str | None = None
    restricted: bool = False
    targets: list[Target] = []
    granted: str | None = None
    checks: list[Check] = []
    limits: list[Limit] = []
    limited: Limited | None = None


class NotUnderstoodError(Exception):
    """nginx refuses the request itself, with `status`, before the mesh looks at it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"nginx answers such a request with {status} itself")
        self.status = status


def encode(question: Question) -> bytes:
    """A question as it is sent."""
    request = question.request
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers)]
    return _preamble(question) + "\r\n".join([*lines, "", ""]).encode("latin-1")


def _preamble(question: Question) -> bytes:
    """PROXY protocol, version 2 (haproxy's proxy-protocol.txt, 2.2)."""
    destination, source = ipaddress.ip_address(question.ip), ipaddress.ip_address(question.source)
    if source.version != destination.version:
        source = type(destination)(0)  # the preamble's addresses are of one family, and this one is nobody's
    addresses = source.packed + destination.packed + struct.pack("!HH", 0, question.port)
    told: list[tuple[int, str]] = [(_DIRECTION, question.direction), (_PROTOCOL, question.carried)]
    if question.peer is not None:
        told.append((_PEER, question.peer))
    body = addresses + b"".join(struct.pack("!BH", type_, len(text)) + text.encode() for type_, text in told)
    return _SIGNATURE + struct.pack("!BBH", _PROXY, _TCP4 if destination.version == 4 else _TCP6, len(body)) + body
