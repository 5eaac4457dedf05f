"""A reference model of what a sidecar does with the calls of its application: splits, circuit breakers, mTLS modes.

It reads manifests, and says of each call what may come of it. Where chance decides (a split's backend, a pod), there is
more than one answer; where what was seen does not tell which it was, the model goes on with all that it may have been.
Calls come one after the other. Times are in seconds of any one clock.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from nginx_mesh.api.meta import Object
from nginx_mesh.api.nsm import CircuitBreaker
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service, ServicePort
from nginx_mesh.api.smi import RouteRule, TrafficSplit
from tests.model.manifests import Manifests, account, addresses, age, holds, named

# How late or early a sidecar's clock may have been read, seen from the caller.
SLACK = 0.25


@dataclass(frozen=True)
class Dial:
    """A request, or with an empty `method` a TCP connection. `want` tells who answers what to do.

    A status to answer with, or "close" for no answer at all; of TCP anything else means a line.
    """

    address: str
    port: int
    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    want: str = "200"


@dataclass(frozen=True)
class Outcome:
    """What came of a call: an answer `by` an endpoint, with a `status` and by mTLS or not, or the sidecar's own.

    failed: nobody gave an answer. nobody: there is nobody to call. open: the circuit of `by` is. closed: TCP without a
    byte, for whatever reason.
    """

    what: Literal["answer", "failed", "nobody", "open", "closed"]
    by: str = ""
    secure: bool = False
    status: str = ""


@dataclass(frozen=True)
class Span:
    """Some moment from `early` to `late`."""

    early: float
    late: float


@dataclass(frozen=True)
class Circuit:
    """A circuit to a Service's port, as it was when last touched."""

    failures: tuple[Span, ...] = ()
    opened: Span | None = None
    half_open: bool = False


@dataclass(frozen=True)
class _Port:
    """A Service's port."""

    service: Service
    port: ServicePort

    @property
    def name(self) -> str:
        return f"{'/'.join(named(self.service))}:{self.port.port}"


@dataclass(frozen=True)
class _Endpoint:
    address: str
    port: int
    secure: bool
    answers: bool


# The circuits that were ever touched, by the name of the Service's port.
_State = frozenset[tuple[str, Circuit]]
# Whom to tell how a call ended: ports, and whether it is the trial of each.
_Tickets = tuple[tuple[_Port, bool], ...]
_Result = Literal["success", "failure", "unknown"]


class Outbound:
    """One caller's sidecar. `proves` says which account is really proved at an address, `mute` where nobody listens."""

    def __init__(self, proves: Mapping[str, tuple[str, str]], mute: Container[int]) -> None:
        self._proves = proves
        self._mute = mute
        self._objects = Manifests(())
        self._mode = ""
        self._states: set[_State] = {frozenset()}

    def change(self, objects: Iterable[Object], caller: Pod, mtls_mode: str) -> None:
        """The mesh from now on. Circuits whose breakers trip as before go on as they are."""
        before = self._objects
        self._objects = Manifests(objects)
        self._mtls = mtls_mode
        self._mode = self._mode_of(caller)
        kept = {
            name
            for name, old in _breakers(before).items()
            if (new := _breakers(self._objects).get(name)) is not None and _numbers(old) == _numbers(new)
        }
        self._states = {
            frozenset((name, circuit) for name, circuit in state if name.partition(":")[0] in kept)
            for state in self._states
        }

    def judge(self, dial: Dial, seen: Outcome, began: float, ended: float) -> set[Outcome]:
        """What should have been seen, if not this; empty when this may be. Then what it tells is taken in."""
        when = Span(began, ended)
        results = {result for state in self._states for result in self._call(state, dial, when)}
        states = {state for outcome, state in results if outcome == seen}
        if not states:
            return {outcome for outcome, _ in results}
        self._states = states
        return set()

    def possible(self, dial: Dial, when: float) -> set[Outcome]:
        """What may come of a call."""
        return {outcome for state in self._states for outcome, _ in self._call(state, dial, Span(when, when))}

    # the way of a call

    def _call(self, state: _State, dial: Dial, when: Span) -> Iterator[tuple[Outcome, _State]]:
        root, own = self._dialled(dial)
        if root is None:
            yield from self._send(state, own, dial, (), when)
            return
        for passes, asked, tickets in self._ask(state, root, when):
            if not passes:
                yield from self._fall_back(asked, root, dial, (), when)
                continue
            for backend in self._choices(root, own, dial):
                if backend is None:
                    yield from self._send(asked, own, dial, tickets, when)
                    continue
                for backend_passes, both_asked, more in self._ask(asked, backend, when):
                    if backend_passes:
                        endpoints = self._endpoints(backend)
                        yield from self._send(both_asked, endpoints, dial, (*tickets, *more), when)
                    else:
                        yield from self._fall_back(both_asked, backend, dial, tickets, when)

    def _dialled(self, dial: Dial) -> tuple[_Port | None, list[_Endpoint]]:
        """Whose policies count, and who is called if none sends the call elsewhere."""
        for service in self._objects.all(Service):
            for port in service.spec.ports:
                if (service.spec.cluster_ip, port.port) == (dial.address, dial.port):
                    return _Port(service, port), self._endpoints(_Port(service, port))
        for pod in self._objects.all(Pod):
            if dial.address in addresses(pod):
                return self._meant(pod, dial.port), self._reachable(pod, dial.address, dial.port)
        raise AssertionError(f"nobody is at {dial.address}")

    def _meant(self, pod: Pod, number: int) -> _Port | None:
        """The headless Service that has the pod behind that port: one that is split, or has a breaker, or none."""
        split = {f"{s.metadata.namespace}/{s.spec.service}" for s in self._objects.all(TrafficSplit)}
        for policed in (split, set(_breakers(self._objects))):
            for service in sorted(self._objects.all(Service), key=named):
                if service.spec.cluster_ip == "None" and pod in self._objects.behind(service):
                    for port in service.spec.ports:
                        if _target(pod, port) == number and _joined(service) in policed:
                            return _Port(service, port)
        return None

    def _choices(self, root: _Port, own: list[_Endpoint], dial: Dial) -> list[_Port | None]:
        """Backends that may be chosen; None is the root itself."""
        namespace, name = named(root.service)
        splits = [
            s for s in self._objects.all(TrafficSplit) if (s.metadata.namespace, s.spec.service) == (namespace, name)
        ]
        if not splits:
            return [None]
        spec = min(splits, key=age).spec
        if spec.matches:
            rules = [RouteRule(kind=match.kind, name=match.name) for match in spec.matches]
            matches = self._objects.matches(namespace, rules)
            if not dial.method or not any(holds(match, dial, sure=True) for match in matches):
                return [None]
        found: list[_Port | None] = []
        for backend in spec.backends:
            for service in self._objects.all(Service):
                if backend.weight > 0 and named(service) == (namespace, backend.service):
                    if backend.service == name:
                        found += [None] if own else []
                    else:
                        ports = [_Port(service, port) for port in _standing_for(root.port, service)]
                        found += [port for port in ports if self._endpoints(port)]
        return found or [None]

    def _fall_back(
        self, state: _State, port: _Port, dial: Dial, tickets: _Tickets, when: Span
    ) -> Iterator[tuple[Outcome, _State]]:
        """The circuit of a port is open: its fallback is called, if that is of its namespace and not itself."""
        endpoints: list[_Endpoint] = []
        fallback = _breakers(self._objects)[_joined(port.service)].spec.fallback
        if fallback is not None and fallback.namespace == port.service.metadata.namespace:
            for service in self._objects.all(Service):
                if named(service) == (fallback.namespace, fallback.name) != named(port.service):
                    for other in service.spec.ports:
                        if other.port == fallback.port:
                            endpoints = self._endpoints(_Port(service, other))
        if endpoints:
            yield from self._send(state, endpoints, dial, tickets, when)
        else:
            yield _seen(dial, Outcome("open", port.name)), self._tell(state, tickets, "unknown", when)[0]

    def _send(
        self, state: _State, endpoints: list[_Endpoint], dial: Dial, tickets: _Tickets, when: Span
    ) -> Iterator[tuple[Outcome, _State]]:
        """To an endpoint, of those with mTLS or of those without; another one where one cannot be reached."""
        if not endpoints:
            yield _seen(dial, Outcome("nobody")), self._tell(state, tickets, "unknown", when)[0]
            return
        for secure in {endpoint.secure for endpoint in endpoints}:
            able = [e for e in endpoints if e.secure == secure and e.answers]
            if not able or dial.want == "close":
                for told in self._tell(state, tickets, "failure", when):
                    yield _seen(dial, Outcome("failed")), told
                continue
            result: _Result = "failure" if dial.method and dial.want >= "500" else "success"
            for told in self._tell(state, tickets, result, when):
                for endpoint in able:
                    status = dial.want if dial.method else ""
                    yield Outcome("answer", f"{endpoint.address}:{endpoint.port}", secure, status), told

    # circuits

    def _ask(self, state: _State, port: _Port, when: Span) -> Iterator[tuple[bool, _State, _Tickets]]:
        """Whether a port's circuit lets a call pass, and whom to tell then."""
        breaker = _breakers(self._objects).get(_joined(port.service))
        if breaker is None:
            yield True, state, ()
            return
        circuit = dict(state).get(port.name, Circuit())
        if circuit.opened is None:
            yield True, state, ((port, circuit.half_open),)
            return
        timeout = breaker.spec.timeout_seconds
        if when.early < circuit.opened.late + timeout + SLACK:
            yield False, state, ()
        if when.late > circuit.opened.early + timeout - SLACK:
            yield True, _with(state, port, Circuit(half_open=True)), ((port, True),)

    def _tell(self, state: _State, tickets: _Tickets, result: _Result, when: Span) -> list[_State]:
        """How a call ended, to the circuits that it passed; what may be then."""
        states = [state]
        for port, trial in tickets:
            states = [told for each in states for told in self._told(each, port, trial, result, when)]
        return states

    def _told(self, state: _State, port: _Port, trial: bool, result: _Result, when: Span) -> Iterator[_State]:
        if trial and result == "success":
            yield _with(state, port, Circuit())
        elif trial and result == "failure":
            yield _with(state, port, Circuit(opened=when))
        elif result != "failure":
            yield state
        else:
            spec = _breakers(self._objects)[_joined(port.service)].spec
            circuit = dict(state).get(port.name, Circuit())
            failures = (*circuit.failures, when)[-spec.errors :]
            first, enough = failures[0], len(failures) == spec.errors
            if enough and when.early - first.late < spec.timeout_seconds + SLACK:
                yield _with(state, port, Circuit(opened=when))
            if not enough or (spec.errors > 1 and when.late - first.early > spec.timeout_seconds - SLACK):
                yield _with(state, port, replace(circuit, failures=failures))

    # who is there

    def _endpoints(self, port: _Port) -> list[_Endpoint]:
        """The ready pods behind a Service's port, as the caller's mode has them."""
        pods = [pod for pod in self._objects.behind(port.service) if _ready(pod)]
        return [
            endpoint
            for pod in pods
            for address in addresses(pod)
            for endpoint in self._reachable(pod, address, _target(pod, port.port))
        ]

    def _reachable(self, pod: Pod, address: str, number: int) -> list[_Endpoint]:
        """A pod, called by mTLS if both modes are for it, else in plaintext, which a strict caller does not."""
        meshed = pod.metadata.annotations.get("injector.nsm.nginx.com/status") == "injected"
        secure = meshed and "off" not in (self._mode, self._mode_of(pod))
        if self._mode == "strict" and not secure:
            return []
        right = not secure or self._proves[address] == account(pod)
        return [_Endpoint(address, number, secure, right and number not in self._mute)]

    def _mode_of(self, pod: Pod) -> str:
        own = pod.metadata.annotations.get("config.nsm.nginx.com/mtls-mode", self._mtls)
        return "strict" if self._mtls == "strict" else own


def _breakers(objects: Manifests) -> dict[str, CircuitBreaker]:
    """The one that counts for each Service, by `namespace/name`."""
    found: dict[str, CircuitBreaker] = {}
    for breaker in sorted(objects.all(CircuitBreaker), key=age):
        destination = breaker.spec.destination
        found.setdefault(f"{destination.namespace or breaker.metadata.namespace}/{destination.name}", breaker)
    return found


def _numbers(breaker: CircuitBreaker) -> tuple[int, int]:
    return (breaker.spec.errors, breaker.spec.timeout_seconds)


def _with(state: _State, port: _Port, circuit: Circuit) -> _State:
    return frozenset((dict(state) | {port.name: circuit}).items())


def _seen(dial: Dial, outcome: Outcome) -> Outcome:
    """What the caller sees of it: a TCP connection is closed without a word."""
    return outcome if dial.method else Outcome("closed")


def _joined(service: Service) -> str:
    return "/".join(named(service))


def _standing_for(port: ServicePort, backend: Service) -> list[ServicePort]:
    """The backend's port of the same number, else of the same name, else its only one; else none."""
    ports = backend.spec.ports
    same_name = [other for other in ports if port.name and other.name == port.name]
    return [other for other in ports if other.port == port.port] or same_name[:1] or (ports if len(ports) == 1 else [])


def _target(pod: Pod, port: ServicePort) -> int:
    """The container's port."""
    target = port.target_port or port.port
    if isinstance(target, int):
        return target
    return next(p.container_port for c in pod.spec.containers for p in c.ports if p.name == target)


def _ready(pod: Pod) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions)
