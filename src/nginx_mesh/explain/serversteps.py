"""The steps at the called pod: what its sidecar does with a request. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.protocol.explain import Incoming, Limit, Refusal

from .document import Step
from .steps import STATELESS, refused

_MODES = {
    "off": "plaintext is taken",
    "permissive": "mTLS and plaintext are taken",
    "strict": "only mTLS is taken",
}
_ACCESS_MODE = "MeshConfig accessControlMode"


def server_steps(
    answer: Incoming, port: int, mode_by: str, access_mode: str, without_effect: Sequence[str], *, tls: bool, grpc: bool
) -> list[Step]:
    """The steps of the called sidecar.

    `mode_by` is the object that sets the pod's mTLS mode. `without_effect` are TrafficTargets ("namespace/name") of
    which the pod is a destination, and which its sidecar does not have, because they grant no caller anything.
    """
    if answer.version == 0:
        return [STATELESS]
    if answer.closed is not None:
        if answer.closed == "access denied":
            return [_access(answer, access_mode, without_effect, None, grpc=grpc)]
        return [Step(step="connection", outcome="refuse", message=answer.closed)]
    if not answer.checks:
        taken = f"{answer.mtls_mode}: {_MODES[answer.mtls_mode]}, and it is {'mTLS' if tls else 'plaintext'}"
        mode = Step(step="mode", message=taken, object=mode_by)
        return [mode, _access(answer, access_mode, without_effect, None, grpc=grpc)]
    steps = []
    for check in answer.checks:
        refusal = check.refusal
        if check.check == "access":
            steps.append(_access(answer, access_mode, without_effect, refusal, grpc=grpc))
        elif refusal is not None:
            steps.append(refused(check.check, refusal, refusal.reason, grpc=grpc))
        elif check.check == "identity":
            proved = f"the caller proves {answer.peer}" if tls else "the caller proves nothing, as it speaks plaintext"
            steps.append(Step(step="identity", message=proved))
        elif check.check == "mode":
            taken = f"{answer.mtls_mode}: {_MODES[answer.mtls_mode]}"
            steps.append(Step(step="mode", message=taken, object=mode_by))
        elif check.check == "port":
            steps.append(Step(step="port", message=f"port {port} is declared, {' and '.join(answer.protocols)}"))
    return [*steps, *_limits(answer, grpc=grpc)]


def _access(
    answer: Incoming, access_mode: str, without_effect: Sequence[str], refusal: Refusal | None, *, grpc: bool
) -> Step:
    """The decision of access control. `refusal` is None when the request is granted, and for TCP."""
    if answer.granted:
        return Step(step="access", message="it is granted", object=f"TrafficTarget {answer.granted}")
    if not answer.restricted:
        return Step(step="access", message="no TrafficTarget speaks of the port", object=_ACCESS_MODE)
    message = f"access denied: {_why_denied(answer, without_effect)}"
    by = _ACCESS_MODE if access_mode == "deny" and not (answer.targets or without_effect) else ""
    if refusal is None:
        return Step(step="access", outcome="refuse", message=message, object=by)
    return refused("access", refusal, message, grpc=grpc, by=by)


def _why_denied(answer: Incoming, without_effect: Sequence[str]) -> str:
    if answer.peer is None and answer.targets:
        return "the caller proves no identity, and only identities are granted anything"
    parts = [
        f"TrafficTarget {target.target} "
        + ("names the caller, but none of its rules fits" if target.names_caller else "names other callers")
        for target in answer.targets
    ]
    parts += [f"TrafficTarget {name} grants nothing here" for name in without_effect]
    return "; ".join(parts) or "no TrafficTarget grants anything here, and what is not granted is denied"


def _limits(answer: Incoming, *, grpc: bool) -> list[Step]:
    """The rate limits that apply, up to and including the one that refuses."""
    limited = answer.limited
    steps: list[Step] = []
    for limit in answer.limits:
        by = f"RateLimit {limit.ratelimit}"
        decides = limited is not None and limited.ratelimit == limit.ratelimit
        if decides and limited is not None and limited.refusal is not None and not limit.admits:
            return [*steps, refused("limit", limited.refusal, f"over {_rate(limit)}", grpc=grpc, by=by)]
        message = f"delayed by {limit.wait} ms, {_rate(limit)}" if limit.wait else f"within {_rate(limit)}"
        longest = decides and limited is not None and limit.wait == limited.wait
        steps.append(Step(step="limit", outcome="delay" if longest else "pass", message=message, object=by))
    return steps


def _rate(limit: Limit) -> str:
    # A rate of 10r/m is kept as 166 requests in 1000 s, so requests per minute are rounded.
    rate = f"{limit.rate / 1000:g} r/s" if limit.rate >= 1000 else f"{round(limit.rate * 60 / 1000, 1):g} r/m"
    burst = f", burst {limit.burst // 1000}" if limit.burst else ""
    return f"{rate}{burst}; with this one {limit.excess / 1000:g} requests above it"
