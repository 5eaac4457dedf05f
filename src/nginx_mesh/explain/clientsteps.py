"""The steps at the caller: what its sidecar, or without one the kernel, does with a request. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from nginx_mesh.protocol.explain import Branch, Circuit, Incoming, Outgoing, Reached, Split

from .document import Step
from .steps import STATELESS, refused, seconds

_MODES = {
    "off": "plaintext to everybody",
    "permissive": "mTLS to those that speak it, plaintext to others",
    "strict": "mTLS only",
}
_MOST_ENDPOINTS = 5


def common_steps(answer: Outgoing, address: str, service: str, mode_by: str, *, grpc: bool) -> list[Step]:
    """The steps of the caller's sidecar that are the same for all routes.

    `address` is the dialled one of the object `service`, `mode_by` the object that sets the caller's mTLS mode.
    """
    if answer.version == 0:
        return [STATELESS]
    steps = []
    if answer.destination is None:
        steps.append(Step(step="destination", message=f"{address} is nothing that the mesh knows"))
        if answer.mtls_mode == "strict":
            reason = "what is not meshed is not called in strict mode"
            return [*steps, Step(step="mode", outcome="refuse", message=reason, object=mode_by)]
        passed = f"{answer.mtls_mode}: the connection goes there as it is, in plaintext"
        return [*steps, Step(step="mode", message=passed, object=mode_by)]
    destination = answer.destination
    meaning = f"{address} means {destination.service or destination.cluster}, {destination.protocol}"
    steps.append(Step(step="destination", message=meaning, object=service))
    steps.append(Step(step="mode", message=f"{answer.mtls_mode}: {_MODES.get(answer.mtls_mode, '')}", object=mode_by))
    first = answer.branches[0]
    steps += [_circuit(circuit, first, grpc=grpc) for circuit in first.breakers if _is_dialled(circuit, answer)]
    if answer.split is not None and not any(step.outcome != "pass" for step in steps):
        steps.append(_split(answer.split, answer.branches))
    return steps


def route_steps(answer: Outgoing, branch: Branch, pods: Mapping[str, str], *, grpc: bool) -> list[Step]:
    """The steps of the caller's sidecar on one route. `pods` are the names of the pods at endpoints, by address."""
    steps = [_circuit(circuit, branch, grpc=grpc) for circuit in branch.breakers if not _is_dialled(circuit, answer)]
    if branch.refusal is None:
        steps.append(_endpoints(branch, pods))
    elif not any(step.outcome == "refuse" for step in steps) and not _is_circuit_open(branch):
        steps.append(refused("endpoints", branch.refusal, branch.refusal.reason, grpc=grpc))
    return steps


def share_of(answer: Outgoing, branch: Branch) -> float:
    """The share of requests, 0 to 1, that takes this route."""
    usable = sum(each.weight for each in answer.branches if each.usable)
    if not branch.branches or not usable:
        return 1.0
    return branch.weight / usable if branch.usable else 0.0


def steps_without_sidecar(service: str, endpoints: int, reason: str) -> list[Step]:
    """The steps of a call that bypasses the caller's sidecar for this reason. `endpoints` is their number."""
    steps = [Step(step="sidecar", message=reason)]
    if endpoints == 0:
        return [*steps, Step(step="endpoints", outcome="refuse", message=f"nothing is behind {service}")]
    chosen = "there is one" if endpoints == 1 else f"the kernel chooses one of {endpoints} at random"
    return [*steps, Step(step="endpoints", message=chosen)]


def handshake(expected: str, answer: Incoming, now: float) -> Step:
    """The caller's sidecar verifies the SVID of the called one, which must have the `expected` SPIFFE ID.

    `now` is seconds since the epoch.
    """
    if not answer.spiffe_id or answer.svid_expires <= now:
        reason = "the called sidecar has no certificate that is valid now"
    elif answer.spiffe_id != expected:
        reason = f"it proves {answer.spiffe_id}, where {expected} is expected"
    else:
        return Step(step="handshake", message=f"it proves {expected}, as is expected")
    return Step(step="handshake", outcome="refuse", message=reason, status=HTTPStatus.BAD_GATEWAY)


def _is_dialled(circuit: Circuit, answer: Outgoing) -> bool:
    """Whether it is the circuit of the dialled Service, and not of a backend of its split."""
    return answer.destination is not None and circuit.service == answer.destination.service


def _is_circuit_open(branch: Branch) -> bool:
    """Whether the last circuit on this route lets no request pass."""
    return bool(branch.breakers) and branch.breakers[-1].wait > 0


def _circuit(circuit: Circuit, branch: Branch, *, grpc: bool) -> Step:
    by = f"CircuitBreaker {circuit.breaker}"
    if circuit.wait == 0:
        half = circuit.state == "half-open"
        message = f"the circuit of {circuit.service} is {circuit.state}"
        return Step(step="breaker", message=f"{message}: this would be the trial" if half else message, object=by)
    left = f"for {seconds(circuit.wait)}" if circuit.state == "open" else "and another request is its trial"
    message = f"the circuit of {circuit.service} is {circuit.state} {left}"
    if branch.refusal is not None and branch.breakers[-1] is circuit:
        none = "its fallback has no endpoint" if circuit.fallback else "there is no fallback"
        return refused("breaker", branch.refusal, f"{message}, and {none}", grpc=grpc, by=by)
    return Step(step="breaker", outcome="divert", message=f"{message}: {circuit.fallback} answers", object=by)


def _split(split: Split, branches: Sequence[Branch]) -> Step:
    by = f"TrafficSplit {split.split}"
    if not branches[0].branches:
        return Step(step="split", message="it is not for such a request, which stays with the Service", object=by)
    if not any(branch.usable for branch in branches):
        return Step(
            step="split", message="no backend has a weight and an endpoint: all stays with the Service", object=by
        )
    weights = ", ".join(
        f"{backend.weight} to {backend.cluster}" + (" (no endpoint)" if backend.weight and not branch.usable else "")
        for backend, branch in zip(split.backends, branches, strict=True)
    )
    matched = "it is for such a request: " if split.conditional else ""
    return Step(step="split", outcome="divert", message=f"{matched}by weight, {weights}", object=by)


def _endpoints(branch: Branch, pods: Mapping[str, str]) -> Step:
    described = ", ".join(_endpoint(endpoint, pods) for endpoint in branch.endpoints[:_MOST_ENDPOINTS])
    more = len(branch.endpoints) - _MOST_ENDPOINTS
    described += f" and {more} more" if more > 0 else ""
    choice = "" if len(branch.endpoints) == 1 else f"{branch.lb_method} chooses among {len(branch.endpoints)}: "
    return Step(step="endpoints", message=f"{choice}{described}")


def _endpoint(endpoint: Reached, pods: Mapping[str, str]) -> str:
    pod = pods.get(endpoint.address)
    protocol = "mTLS" if endpoint.tls else "plaintext"
    down = f", failed, passed over for {seconds(endpoint.down)}" if endpoint.down else ""
    return f"{f'{pod} at ' if pod else ''}{endpoint.address} ({protocol}{down})"
