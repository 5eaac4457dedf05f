"""A reference model of access control and rate limits at a pod.

It reads manifests and says what becomes of a call. It is slow and plain on purpose: no index, nothing compiled, each
rule asked where the documents have it. It shares the API's types with the mesh, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nginx_mesh.api.meta import Object
from nginx_mesh.api.nsm import RateLimit, WorkloadReference
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import TCPRoute, TrafficTarget
from tests.model.manifests import Manifests, account, addresses, age, holds, named

Verdict = Literal["allowed", "bad certificate", "denied", "limited"]


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
            account(pod) == (caller.namespace, caller.account) and caller.address in addresses(pod)
            for pod in self.callers
        )


class Reference:
    """A mesh as its manifests have it. Calls to `receive` are those that one pod gets, in order."""

    def __init__(self, objects: Iterable[Object], mtls_mode: str, access_control_mode: str) -> None:
        self._objects = Manifests(objects)
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
        about = [target for target in self._objects.all(TrafficTarget) if _aims_at(target, pod, call.port)]
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
            return any(named(route) in {(own, name) for name in wanted} for route in self._objects.all(TCPRoute))
        return any(holds(match, call, sure=True) for match in self._objects.matches(own, target.spec.rules))

    # rate limits

    def _admits(self, pod: Pod, call: Call, now: int) -> bool:
        taken: list[tuple[_Bucket, int]] = []
        for share in self._shares_of(pod, call.caller):
            spec, namespace = share.policy.spec, share.policy.metadata.namespace
            if spec.rules and not any(holds(m, call, sure=False) for m in self._objects.matches(namespace, spec.rules)):
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
                first.setdefault(named(share.policy), share)
        return list(first.values()) or [share for share in shares if share.source is None]

    def _shares(self, pod: Pod) -> Iterator[_Share]:
        """Those of the policies that are about a pod. Of two about the same pair, the oldest counts, then by name."""
        claimed: set[tuple[object, object]] = set()
        policies = sorted(self._objects.all(RateLimit), key=age)
        for policy in policies:
            spec, own = policy.spec, policy.metadata.namespace
            destination = (spec.destination.kind, spec.destination.namespace or own, spec.destination.name)
            if pod not in self._pods(spec.destination, own):
                continue
            in_force = not spec.rules or any(True for _ in self._objects.matches(own, spec.rules))
            sources: Sequence[WorkloadReference | None] = spec.sources or [None]
            for source in sources:
                pair = (destination, source and (source.kind, source.namespace or own, source.name))
                if in_force and pair not in claimed:
                    yield _Share(policy, source, tuple(self._pods(source, own)) if source else ())
                claimed.add(pair)

    def _pods(self, reference: WorkloadReference, own: str) -> list[Pod]:
        namespace = reference.namespace or own
        pods = [pod for pod in self._objects.all(Pod) if pod.metadata.namespace == namespace]
        if reference.kind == "Pod":
            return [pod for pod in pods if pod.metadata.name == reference.name]
        if reference.kind == "Service":
            services = [s for s in self._objects.all(Service) if named(s) == (namespace, reference.name)]
            return [pod for service in services for pod in self._objects.behind(service)]
        owner = f"nsm.nginx.com/{reference.kind.lower()}"
        return [pod for pod in pods if pod.metadata.labels.get(owner) == reference.name]


def _aims_at(target: TrafficTarget, pod: Pod, port: int) -> bool:
    destination = target.spec.destination
    namespace = destination.namespace or target.metadata.namespace
    return (namespace, destination.name) == account(pod) and destination.port in (None, port)
