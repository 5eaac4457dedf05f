"""What follows from the steps of an explanation: the verdict, the step that decides, and the summary. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .document import Outcome, Route, Step, Verdict

_GRPC_NAMES = {7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED"}


def verdict_of(steps: Iterable[Step]) -> Verdict:
    """The verdict of steps that a request passes one after the other."""
    outcomes = {step.outcome for step in steps}
    if "refuse" in outcomes:
        return "refused"
    return "unknown" if "unknown" in outcomes else "allowed"


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of alternatives, such as the routes that a request may take."""
    found = set(verdicts)
    if len(found) == 1:
        return found.pop()
    return "mixed" if found else "unknown"


def deciding_step(steps: Iterable[Step]) -> Step | None:
    """The step that refuses, else the one that delays longest, else the first whose outcome is unknown."""
    wanted: Sequence[Outcome] = ("refuse", "delay", "unknown")
    listed = list(steps)
    return next((step for outcome in wanted for step in listed if step.outcome == outcome), None)


def steps_of(route: Route) -> list[Step]:
    """All steps of a route, including those at the called pods."""
    return [*route.steps, *(step for callee in route.callees for step in callee.steps)]


def summary(verdict: Verdict, steps: Sequence[Step], routes: Sequence[Route]) -> str:
    """The first line of an explanation."""
    if verdict == "mixed":
        return "it depends: " + ", ".join(dict.fromkeys(_parts(routes)))
    return _sentence(verdict, deciding_step([*steps, *(step for route in routes for step in steps_of(route))]))


def refusal_text(step: Step) -> str:
    """How a request that this step refuses is answered, to follow "refused"."""
    if step.grpc_status is not None:
        return f" with gRPC status {step.grpc_status} {_GRPC_NAMES.get(step.grpc_status, '')}".rstrip()
    return f" with {step.status}" if step.status is not None else ", by closing the connection"


def _parts(routes: Sequence[Route]) -> Iterator[str]:
    """The parts of a mixed verdict: one for each route, or for each called pod where a route is mixed itself."""
    used = [route for route in routes if route.share]
    for route in used:
        requests = f"{route.share * 100:.3g} % of requests" if len(used) > 1 else "some"
        if route.verdict != "mixed":
            yield f"{requests} to {route.cluster}: {_sentence(route.verdict, deciding_step(steps_of(route)))}"
            continue
        for callee in route.callees:
            pods = f"{callee.pod} and {callee.pods - 1} more" if callee.pods > 1 else callee.pod
            yield f"{requests}, at {pods}: {_sentence(callee.verdict, deciding_step(callee.steps))}"


def _sentence(verdict: Verdict, step: Step | None) -> str:
    reason = "" if step is None else step.message + (f" ({step.object})" if step.object else "")
    if verdict == "allowed":
        return f"allowed, but delayed: {reason}" if step is not None and step.outcome == "delay" else "allowed"
    if verdict == "refused" and step is not None:
        return f"refused{refusal_text(step)}: {reason}"
    return f"not known: {reason}" if reason else "not known"
