"""A reference model of access control and rate limits at a pod.

It reads manifests and says what becomes of a call. It is slow and plain on purpose: no index, nothing compiled, each
rule asked where the documents have it. It shares the API's types with the mesh, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar
from urllib.parse import unquote

from nginx_mesh.api.core import Pod, Service
from nginx_mesh.api.meta import Object
from nginx_mesh.api.nsm import RateLimit, RateLimitRule, WorkloadReference
from nginx_mesh.api.smi import HTTPMatch, HTTPRouteGroup, RouteRule, TCPRoute, TrafficTarget

Verdict = Literal["allowed", "bad certificate", "denied", "limited"]
_Kind = TypeVar("_Kind", bound=Object)

# Applications differ in what they make of these: dots as segments, encoded slashes, backslashes.
_AMBIGUOUS = re.compile(r"/(?:\.|%2e){1,2}(?:[/;]|$)|%2f|%5c|\\", re.IGNORECASE)


@dataclass(frozen=True)
class Caller:
    """Who calls, from where. `proof` is what it shows: an SVID of the mesh, nothing, or a certificate of others."""

    namespace: str
    account: str
    address: str
    proof: Literal["svid", "plaintext", "foreign"] = "svid"


@dataclass(frozen=True)
class Call:
    """A request, or with an empty `method` a TCP connection. Header names are in any case, each there once."""

    caller: Caller
    port: int
    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Bucket:
    """nginx's limit_req: `excess` in thousandths of a request, at `last` (ms)."""

    excess: int = 0
    last: int | None = None

    def after(self, rate: int, now: int) -> int:
        """The excess with one more request, at `rate` thousandths of a request per second."""
        if self.last is None:
            return 0
        return max(0, self.excess - rate * (now - self.last) // 1000 + 1000)


@dataclass(frozen=True)
class _Share:
    """A RateLimit's part for one of its sources; without a source, for all other callers."""

    policy: RateLimit
    source: WorkloadReference | None
    callers: tuple[Pod, ...] = ()

    @property
    def count(self) -> tuple[str, str, str]:
        """What it is counted under."""
        return (self.policy.metadata.namespace, self.policy.metadata.name, repr(self.source))

    def has(self, caller: Caller) -> bool:
        """Whether the caller is one of its pods: proves their account, and calls from where they are."""
        return caller.proof == "svid" and any(
            _account(pod) == (caller.namespace, caller.account) and caller.address in _addresses(pod)
            for pod in self.callers
        )


class Reference:
    """A mesh as its manifests have it. Calls to `receive` are those that one pod gets, in order."""

    def __init__(self, objects: Iterable[Object], mtls_mode: str, access_control_mode: str) -> None:
        self._objects = list(objects)
        self._mtls = mtls_mode
        self._access = access_control_mode
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}

    def receive(self, pod: Pod, call: Call, now: int) -> Verdict:
        """What a meshed pod's sidecar does with a call at `now` (ms)."""
        if call.caller.proof == "foreign" or (call.caller.proof == "plaintext" and self._mtls == "strict"):
            return "bad certificate"
        if not self._allows(pod, call):
            return "denied"
        return "allowed" if not call.method or self._admits(pod, call, now) else "limited"

    # access control

    def _allows(self, pod: Pod, call: Call) -> bool:
        about = [target for target in self._kind(TrafficTarget) if _aims_at(target, pod, call.port)]
        if not about and self._access == "allow":
            return True
        return call.caller.proof == "svid" and any(self._grants(target, call) for target in about)

    def _grants(self, target: TrafficTarget, call: Call) -> bool:
        own = target.metadata.namespace
        sources = {(source.namespace or own, source.name) for source in target.spec.sources}
        if (call.caller.namespace, call.caller.account) not in sources:
            return False
        if not target.spec.rules:
            return True
        if not call.method:
            wanted = {rule.name for rule in target.spec.rules if rule.kind == "TCPRoute"}
            return any(_named(route) in {(own, name) for name in wanted} for route in self._kind(TCPRoute))
        return any(_holds(match, call, sure=True) for match in self._matches(own, target.spec.rules))

    def _matches(self, namespace: str, rules: Sequence[RouteRule | RateLimitRule]) -> Iterator[HTTPMatch]:
        for rule in rules:
            for group in self._kind(HTTPRouteGroup):
                if rule.kind == "HTTPRouteGroup" and _named(group) == (namespace, rule.name):
                    yield from (m for m in group.spec.matches if not rule.matches or m.name in rule.matches)

    # rate limits

    def _admits(self, pod: Pod, call: Call, now: int) -> bool:
        taken: list[tuple[_Bucket, int]] = []
        for share in self._shares_of(pod, call.caller):
            spec, namespace = share.policy.spec, share.policy.metadata.namespace
            if spec.rules and not any(_holds(m, call, sure=False) for m in self._matches(namespace, spec.rules)):
                continue
            bucket = self._buckets.setdefault(share.count, _Bucket())
            number, unit = spec.rate.removesuffix("/s").removesuffix("/m"), spec.rate[-1]
            rate = int(number.removesuffix("r")) * 1000 // (60 if unit == "m" else 1) // max(1, len(spec.sources))
            excess = bucket.after(max(1, rate), now)
            if excess > spec.burst * 1000:
                return False
            taken.append((bucket, excess))
        for bucket, excess in taken:
            bucket.excess, bucket.last = excess, now
        return True

    def _shares_of(self, pod: Pod, caller: Caller) -> list[_Share]:
        """The parts of all policies that count for a caller."""
        shares = list(self._shares(pod))
        first: dict[tuple[str, str], _Share] = {}
        for share in shares:
            if share.has(caller):
                first.setdefault(_named(share.policy), share)
        return list(first.values()) or [share for share in shares if share.source is None]

    def _shares(self, pod: Pod) -> Iterator[_Share]:
        """Those of the policies that are about a pod. Of two about the same pair, the oldest counts, then by name."""
        claimed: set[tuple[object, object]] = set()
        policies = sorted(self._kind(RateLimit), key=lambda p: (p.metadata.creation_timestamp, *_named(p)))
        for policy in policies:
            spec, own = policy.spec, policy.metadata.namespace
            destination = (spec.destination.kind, spec.destination.namespace or own, spec.destination.name)
            if pod not in self._pods(spec.destination, own):
                continue
            in_force = not spec.rules or any(True for _ in self._matches(own, spec.rules))
            sources: Sequence[WorkloadReference | None] = spec.sources or [None]
            for source in sources:
                pair = (destination, source and (source.kind, source.namespace or own, source.name))
                if in_force and pair not in claimed:
                    yield _Share(policy, source, tuple(self._pods(source, own)) if source else ())
                claimed.add(pair)

    def _pods(self, reference: WorkloadReference, own: str) -> list[Pod]:
        namespace = reference.namespace or own
        pods = [pod for pod in self._kind(Pod) if pod.metadata.namespace == namespace]
        if reference.kind == "Pod":
            return [pod for pod in pods if pod.metadata.name == reference.name]
        if reference.kind == "Service":
            services = [s for s in self._kind(Service) if _named(s) == (namespace, reference.name) and s.spec.selector]
            return [p for p in pods for s in services if s.spec.selector.items() <= p.metadata.labels.items()]
        owner = f"nsm.nginx.com/{reference.kind.lower()}"
        return [pod for pod in pods if pod.metadata.labels.get(owner) == reference.name]

    def _kind(self, kind: type[_Kind]) -> list[_Kind]:
        return [obj for obj in self._objects if isinstance(obj, kind)]


def _named(obj: Object) -> tuple[str, str]:
    return (obj.metadata.namespace, obj.metadata.name)


def _account(pod: Pod) -> tuple[str, str]:
    return (pod.metadata.namespace, pod.spec.service_account_name or "default")


def _addresses(pod: Pod) -> set[str]:
    return {address.ip for address in pod.status.pod_ips}


def _aims_at(target: TrafficTarget, pod: Pod, port: int) -> bool:
    destination = target.spec.destination
    namespace = destination.namespace or target.metadata.namespace
    return (namespace, destination.name) == _account(pod) and destination.port in (None, port)


def _holds(match: HTTPMatch, call: Call, *, sure: bool) -> bool:
    """Whether all parts of a match hold. `sure`: for every reading of the path; else any reading will do."""
    if match.methods and not {"*", call.method} & set(match.methods):
        return False
    sent = {name.lower(): value for name, value in call.headers.items()}
    for name, pattern in match.headers.items():
        value = sent.get(name.lower())
        if value is None or not re.search(pattern, value):
            return False
    if match.path_regex in ("", "*"):
        return True
    path = call.path.partition("?")[0]
    if _AMBIGUOUS.search(path):
        return not sure
    found = [bool(re.search(match.path_regex, reading)) for reading in _readings(path)]
    return all(found) if sure else any(found)


def _readings(path: str) -> set[str]:
    """What applications may take a path for: decoded, slashes merged, each segment's parameters dropped, or not."""
    decoded = unquote(path)
    readings = {decoded, re.sub(r";[^/]*", "", decoded)}
    return readings | {re.sub("/+", "/", reading) for reading in readings}
