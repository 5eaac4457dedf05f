"""From what sidecars answer to steps that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

from nginx_mesh.api.annotations import MTLS_MODE
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.compile.effective import effective_mode
from nginx_mesh.protocol.explain import Branch, Circuit, Incoming, Limit, Outgoing, Reached, Refusal, Split

from .document import Outcome, Step, Verdict, Way

GRPC_NAMES = {7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED"}

_MODES = {
    "off": "plaintext to everybody",
    "permissive": "mTLS to those that speak it, plaintext to others",
    "strict": "mTLS only",
}
_TAKES = {
    "off": "plaintext is taken",
    "permissive": "mTLS and plaintext are taken",
    "strict": "only mTLS is taken",
}
_STATELESS = Step(step="state", outcome="refuse", message="the sidecar has no state yet")


def mode_object(settings: MeshSettings, pod: PodRecord) -> str:
    """What gives a pod its mTLS mode."""
    if settings.mtls_mode == "strict" or effective_mode(settings, pod) == settings.mtls_mode:
        return "MeshConfig mtls.mode"
    return f"annotation {MTLS_MODE}"


def outgoing(answer: Outgoing, address: str, target: str, mode_by: str, *, grpc: bool) -> list[Step]:
    """What the caller's sidecar does before ways part."""
    if answer.version == 0:
        return [_STATELESS]
    steps = []
    if answer.destination is None:
        steps.append(Step(step="destination", message=f"{address} is nothing that the mesh knows"))
        if answer.mtls_mode == "strict":
            reason = "what is not meshed is not called in strict mode"
            return [*steps, Step(step="mode", outcome="refuse", message=reason, object=mode_by)]
        passed = f"{answer.mtls_mode}: the connection goes there as it is, in plaintext"
        return [*steps, Step(step="mode", message=passed, object=mode_by)]
    meaning = answer.destination
    what = f"{address} means {meaning.service or meaning.cluster}, {meaning.protocol}"
    steps.append(Step(step="destination", message=what, object=target))
    steps.append(Step(step="mode", message=f"{answer.mtls_mode}: {_MODES.get(answer.mtls_mode, '')}", object=mode_by))
    first = answer.branches[0]
    steps += [_circuit(circuit, first, grpc=grpc) for circuit in first.breakers if _is_own(circuit, answer)]
    if answer.split is not None and not any(step.outcome != "pass" for step in steps):
        steps.append(_split(answer.split, answer.branches))
    return steps


def way(answer: Outgoing, branch: Branch, names: Mapping[str, str], *, grpc: bool) -> list[Step]:
    """What the caller's sidecar does on one way. `names` are the pods at endpoints."""
    steps = [_circuit(circuit, branch, grpc=grpc) for circuit in branch.breakers if not _is_own(circuit, answer)]
    if branch.refusal is not None and not any(step.outcome == "refuse" for step in steps) and not _broken(branch):
        steps.append(_refused("endpoints", branch.refusal, branch.refusal.reason, grpc=grpc))
    elif branch.refusal is None:
        steps.append(_endpoints(branch, names))
    return steps


def share(answer: Outgoing, branch: Branch) -> float:
    """Which part of requests goes this way."""
    usable = sum(each.weight for each in answer.branches if each.usable)
    if not branch.branches or not usable:
        return 1.0
    return branch.weight / usable if branch.usable else 0.0


def without_sidecar(name: str, endpoints: int, why: str) -> list[Step]:
    """What happens to a call that no sidecar sees."""
    steps = [Step(step="sidecar", message=why)]
    if endpoints == 0:
        return [*steps, Step(step="endpoints", outcome="refuse", message=f"nothing is behind {name}")]
    chosen = "there is one" if endpoints == 1 else f"the kernel chooses one of {endpoints} at random"
    return [*steps, Step(step="endpoints", message=chosen)]


def handshake(expected: str, answer: Incoming, now: float) -> list[Step]:
    """What the caller checks of the called sidecar."""
    if not answer.spiffe_id or answer.svid_expires <= now:
        reason = "the called sidecar has no certificate that is valid now"
        return [Step(step="handshake", outcome="refuse", message=reason, status=HTTPStatus.BAD_GATEWAY)]
    if answer.spiffe_id != expected:
        reason = f"it proves {answer.spiffe_id}, where {expected} is expected"
        return [Step(step="handshake", outcome="refuse", message=reason, status=HTTPStatus.BAD_GATEWAY)]
    return [Step(step="handshake", message=f"it proves {expected}, as is expected")]


def incoming(
    answer: Incoming, port: int, mode_by: str, access_mode: str, voiceless: Sequence[str], *, tls: bool, grpc: bool
) -> list[Step]:
    """What the called sidecar does. `voiceless` are TrafficTargets that speak of the pod and grant nothing there."""
    if answer.version == 0:
        return [_STATELESS]
    if answer.closed is not None:
        if answer.closed == "access denied":
            return [_access(answer, access_mode, voiceless, None, grpc=grpc)]
        return [Step(step="connection", outcome="refuse", message=answer.closed)]
    if not answer.checks:
        taken = f"{answer.mtls_mode}: {_TAKES[answer.mtls_mode]}, and it is {'mTLS' if tls else 'plaintext'}"
        mode = Step(step="mode", message=taken, object=mode_by)
        return [mode, _access(answer, access_mode, voiceless, None, grpc=grpc)]
    steps = []
    for check in answer.checks:
        refusal = check.refusal
        if check.check == "access":
            steps.append(_access(answer, access_mode, voiceless, refusal, grpc=grpc))
        elif refusal is not None:
            steps.append(_refused(check.check, refusal, refusal.reason, grpc=grpc))
        elif check.check == "identity":
            who = f"the caller proves {answer.peer}" if tls else "the caller proves nothing, as it speaks plaintext"
            steps.append(Step(step="identity", message=who))
        elif check.check == "mode":
            taken = f"{answer.mtls_mode}: {_TAKES[answer.mtls_mode]}"
            steps.append(Step(step="mode", message=taken, object=mode_by))
        elif check.check == "port":
            steps.append(Step(step="port", message=f"port {port} is declared, {' and '.join(answer.protocols)}"))
    return [*steps, *_limits(answer, grpc=grpc)]


def not_understood(status: int) -> Step:
    """nginx refuses the request itself."""
    reason = "nginx refuses such a request, before the mesh looks at it"
    return Step(step="request", outcome="refuse", message=reason, status=status)


def verdict(steps: Iterable[Step]) -> Verdict:
    """Of steps that follow each other."""
    outcomes = {step.outcome for step in steps}
    if "refuse" in outcomes:
        return "refused"
    return "unknown" if "unknown" in outcomes else "allowed"


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of things that may happen instead of each other."""
    found = set(verdicts)
    if len(found) == 1:
        return found.pop()
    return "mixed" if found else "unknown"


def deciding(steps: Iterable[Step]) -> Step | None:
    """The step that refuses, else the one that delays longest, else one that is not known."""
    wanted: Sequence[Outcome] = ("refuse", "delay", "unknown")
    listed = list(steps)
    return next((step for outcome in wanted for step in listed if step.outcome == outcome), None)


def summary(verdict: Verdict, steps: Sequence[Step], ways: Sequence[Way]) -> str:
    """The first line of an explanation."""
    if verdict == "mixed":
        return "it depends: " + ", ".join(dict.fromkeys(_parts(ways)))
    everything = [*steps, *(step for each in ways for step in steps_of(each))]
    return _sentence(verdict, deciding(everything))


def _parts(ways: Sequence[Way]) -> Iterable[str]:
    split = len([each for each in ways if each.share]) > 1
    for each in ways:
        if not each.share:
            continue
        of = f"{percent(each.share)} of requests" if split else "some"
        if each.verdict == "mixed":
            for called in each.called:
                said = _sentence(called.verdict, deciding(called.steps))
                yield f"{of}, at {called.pod}{f' and {called.pods - 1} more' if called.pods > 1 else ''}: {said}"
        else:
            yield f"{of} to {each.cluster}: {_sentence(each.verdict, deciding(steps_of(each)))}"


def steps_of(each: Way) -> list[Step]:
    """All steps of a way, those at pods included."""
    return [*each.steps, *(step for called in each.called for step in called.steps)]


def _sentence(verdict: Verdict, step: Step | None) -> str:
    why = "" if step is None else step.message + (f" ({step.object})" if step.object else "")
    if verdict == "allowed":
        return f"allowed, but delayed: {why}" if step is not None and step.outcome == "delay" else "allowed"
    if verdict == "refused" and step is not None:
        return f"refused{answered(step)}: {why}"
    return f"not known: {why}" if why else "not known"


def answered(step: Step) -> str:
    """With what a refusal is answered."""
    if step.grpc_status is not None:
        return f" with gRPC status {step.grpc_status} {GRPC_NAMES.get(step.grpc_status, '')}".rstrip()
    return f" with {step.status}" if step.status is not None else ", by closing the connection"


def percent(part: float) -> str:
    """A share as people write it."""
    return f"{part * 100:.3g} %"


def _is_own(circuit: Circuit, answer: Outgoing) -> bool:
    """Whether it is the breaker of what was dialled, and not of a backend."""
    return answer.destination is not None and circuit.service == answer.destination.service


def _broken(branch: Branch) -> bool:
    """Whether the last breaker that was asked does not let pass."""
    return bool(branch.breakers) and branch.breakers[-1].wait > 0


def _refused(step: str, refusal: Refusal, message: str, *, grpc: bool, by: str = "") -> Step:
    if grpc:
        return Step(
            step=step,
            outcome="refuse",
            message=message,
            object=by,
            status=HTTPStatus.OK,
            grpc_status=refusal.grpc_status,
        )
    return Step(step=step, outcome="refuse", message=message, object=by, status=refusal.status)


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
        return _refused("breaker", branch.refusal, f"{message}, and {none}", grpc=grpc, by=by)
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
    fits = "it is for such a request: " if split.conditional else ""
    return Step(step="split", outcome="divert", message=f"{fits}by weight, {weights}", object=by)


def _endpoints(branch: Branch, names: Mapping[str, str]) -> Step:
    described = ", ".join(_endpoint(endpoint, names) for endpoint in branch.endpoints[:5])
    more = len(branch.endpoints) - 5
    described += f" and {more} more" if more > 0 else ""
    choice = "" if len(branch.endpoints) == 1 else f"{branch.lb_method} chooses among {len(branch.endpoints)}: "
    return Step(step="endpoints", message=f"{choice}{described}")


def _endpoint(endpoint: Reached, names: Mapping[str, str]) -> str:
    name = names.get(endpoint.address)
    how = "mTLS" if endpoint.tls else "plaintext"
    down = f", failed, passed over for {seconds(endpoint.down)}" if endpoint.down else ""
    return f"{f'{name} at ' if name else ''}{endpoint.address} ({how}{down})"


def _access(
    answer: Incoming, access_mode: str, voiceless: Sequence[str], refusal: Refusal | None, *, grpc: bool
) -> Step:
    if answer.granted:
        return Step(step="access", message="it is granted", object=f"TrafficTarget {answer.granted}")
    if not answer.restricted:
        return Step(step="access", message="no TrafficTarget speaks of the port", object="MeshConfig accessControlMode")
    message = f"access denied: {_why_denied(answer, voiceless)}"
    by = "MeshConfig accessControlMode" if access_mode == "deny" and not (answer.targets or voiceless) else ""
    if refusal is None:
        return Step(step="access", outcome="refuse", message=message, object=by)
    return _refused("access", refusal, message, grpc=grpc, by=by)


def _why_denied(answer: Incoming, voiceless: Sequence[str]) -> str:
    if answer.peer is None and answer.targets:
        return "the caller proves no identity, and only identities are granted anything"
    parts = [
        f"TrafficTarget {target.target} "
        + ("names the caller, but none of its rules fits" if target.names_caller else "names other callers")
        for target in answer.targets
    ]
    parts += [f"TrafficTarget {name} grants nothing here" for name in voiceless]
    return "; ".join(parts) or "no TrafficTarget grants anything here, and what is not granted is denied"


def _limits(answer: Incoming, *, grpc: bool) -> list[Step]:
    limited = answer.limited
    steps: list[Step] = []
    for limit in answer.limits:
        by = f"RateLimit {limit.ratelimit}"
        decides = limited is not None and limited.ratelimit == limit.ratelimit
        if decides and limited is not None and limited.refusal is not None and not limit.admits:
            message = f"over {_rate(limit)}"
            return [*steps, _refused("limit", limited.refusal, message, grpc=grpc, by=by)]
        message = f"delayed by {limit.wait} ms, {_rate(limit)}" if limit.wait else f"within {_rate(limit)}"
        longest = decides and limited is not None and limit.wait == limited.wait
        steps.append(Step(step="limit", outcome="delay" if longest else "pass", message=message, object=by))
    return steps


def _rate(limit: Limit) -> str:
    # what is written as 10r/m counts as 166 in 1000 s
    rate = f"{limit.rate / 1000:g} r/s" if limit.rate >= 1000 else f"{round(limit.rate * 60 / 1000, 1):g} r/m"
    burst = f", burst {limit.burst // 1000}" if limit.burst else ""
    return f"{rate}{burst}; with this one {limit.excess / 1000:g} requests above it"


def seconds(ms: int) -> str:
    """Milliseconds, in seconds."""
    return f"{ms / 1000:.1f} s"
