"""The answers of sidecars as steps: each names the object that decides, and the deciding step makes the verdict."""

from __future__ import annotations

import pytest

from nginx_mesh.explain.clientsteps import common_steps, handshake, route_steps, share_of
from nginx_mesh.explain.document import Callee, Route, Step
from nginx_mesh.explain.serversteps import server_steps
from nginx_mesh.explain.verdicts import combined, deciding_step, refusal_text, summary, verdict_of
from nginx_mesh.protocol.explain import (
    Branch,
    Check,
    Circuit,
    Incoming,
    Limit,
    Limited,
    Meaning,
    Outgoing,
    Reached,
    Refusal,
    Share,
    Split,
    Target,
)

WEB = Meaning(protocol="http", cluster="shop/web:80", service="shop/web:80")
ENDPOINT = Reached(address="10.0.0.1:8080", tls=True, spiffe_id="spiffe://example.org/ns/shop/sa/web")
NONE = Refusal(reason="no endpoint of shop/web:80 may be called", status=503, grpc_status=14)
DENIED = Refusal(reason="access denied", status=403, grpc_status=7)


def branch(**more: object) -> Branch:
    known = {"branches": 0, "weight": 0, "usable": False, "name": WEB.cluster, "cluster": WEB.cluster}
    return Branch(**{**known, "endpoints": [ENDPOINT], "lb_method": "random", **more})  # type: ignore[arg-type]


def outgoing(*branches: Branch, mode: str = "permissive", split: Split | None = None, known: bool = True) -> Outgoing:
    return Outgoing(
        version=1,
        svid_expires=1e12,
        mtls_mode=mode,
        destination=WEB if known else None,
        split=split,
        branches=list(branches),
    )


def common(answer: Outgoing, *, grpc: bool = False) -> list[Step]:
    return common_steps(answer, "10.96.0.1:80", "Service shop/web", "MeshConfig mtls.mode", grpc=grpc)


def incoming(answer: Incoming, *, tls: bool = True, grpc: bool = False, access: str = "allow") -> list[Step]:
    return server_steps(answer, 8080, "MeshConfig mtls.mode", access, ["shop/void"], tls=tls, grpc=grpc)


def judged(*, refusal: Refusal | None = None, **more: object) -> Incoming:
    checks = [Check(check="state"), Check(check="identity"), Check(check="mode"), Check(check="port")]
    known = {
        "version": 1,
        "svid_expires": 1e12,
        "mtls_mode": "permissive",
        "protocols": ["http"],
        "peer": "spiffe://a/b",
    }
    return Incoming(**{**known, "checks": [*checks, Check(check="access", refusal=refusal)], **more})  # type: ignore[arg-type]


def limit(*, admits: bool = True, wait: int = 0, policy: str = "shop/rl", rate: int = 166) -> Limit:
    return Limit(name=policy, ratelimit=policy, rate=rate, burst=2000, delay=0, excess=1500, wait=wait, admits=admits)


def test_an_address_outside_of_the_mesh_is_refused_in_strict_mode_only() -> None:
    assert verdict_of(common(outgoing(known=False))) == "allowed"
    refused = common(outgoing(known=False, mode="strict"))
    assert (refused[-1].outcome, refused[-1].object, refused[-1].status) == ("refuse", "MeshConfig mtls.mode", None)


def test_an_open_circuit_without_a_fallback_refuses_and_is_named() -> None:
    circuit = Circuit(service=WEB.service, state="open", wait=1500, breaker="shop/cb")
    answer = outgoing(branch(breakers=[circuit], refusal=NONE, endpoints=[]))
    (step,) = (step for step in common(answer) if step.outcome == "refuse")
    assert (step.object, step.status, "for 1.5 s" in step.message) == ("CircuitBreaker shop/cb", 503, True)
    assert route_steps(answer, answer.branches[0], {}, grpc=False) == []
    (step,) = (step for step in common(answer, grpc=True) if step.outcome == "refuse")
    assert (step.status, step.grpc_status) == (200, 14)


def test_an_open_circuit_with_a_fallback_diverts_and_the_split_does_not_apply() -> None:
    circuit = Circuit(service=WEB.service, state="open", wait=1500, breaker="shop/cb", fallback="shop/other:80")
    split = Split(split="shop/ts", conditional=False, backends=[Share(cluster=WEB.cluster, weight=1)])
    found = common(outgoing(branch(breakers=[circuit], cluster="shop/other:80"), split=split))
    assert [(step.step, step.outcome) for step in found] == [
        ("destination", "pass"),
        ("mode", "pass"),
        ("breaker", "divert"),
    ]


@pytest.mark.parametrize(
    ("state", "wait", "says"), [("half-open", 0, "would be the trial"), ("half-open", 9, "another")]
)
def test_a_half_open_circuit_says_whether_this_would_be_the_trial(state: str, wait: int, says: str) -> None:
    circuit = Circuit(service=WEB.service, state=state, wait=wait, breaker="shop/cb", fallback="x")  # type: ignore[arg-type]
    assert says in common(outgoing(branch(breakers=[circuit])))[-1].message


def test_the_circuit_of_a_backend_is_a_step_of_its_route() -> None:
    circuit = Circuit(service="shop/v2:80", state="closed", wait=0, breaker="shop/cb2")
    answer = outgoing(branch(breakers=[circuit], cluster="shop/v2:80"))
    assert [step.step for step in common(answer)] == ["destination", "mode"]
    assert route_steps(answer, answer.branches[0], {}, grpc=False)[0].object == "CircuitBreaker shop/cb2"


def test_only_usable_backends_have_a_share() -> None:
    one, two = branch(branches=3, weight=3, usable=True), branch(branches=3, weight=1, usable=True)
    dead = branch(branches=3, weight=6, usable=False)
    answer = outgoing(one, two, dead)
    assert [share_of(answer, each) for each in answer.branches] == [0.75, 0.25, 0.0]
    assert share_of(outgoing(branch()), branch()) == 1.0


def test_a_split_step_says_whether_the_split_matches_the_request() -> None:
    split = Split(
        split="shop/ts",
        conditional=True,
        backends=[Share(cluster="shop/a:80", weight=3), Share(cluster="shop/b:80", weight=1)],
    )
    aside = common(outgoing(branch(), split=split))[-1]
    assert (aside.outcome, aside.object) == ("pass", "TrafficSplit shop/ts")
    one, dead = branch(branches=2, weight=3, usable=True), branch(branches=2, weight=1, usable=False)
    applied = common(outgoing(one, dead, split=split))[-1]
    assert applied.outcome == "divert"
    assert applied.message.endswith("3 to shop/a:80, 1 to shop/b:80 (no endpoint)")
    assert common(outgoing(branch(branches=2), split=split))[-1].outcome == "pass"


def test_endpoints_are_shown_with_their_protocol_and_whether_they_are_passed_over() -> None:
    down = Reached(address="10.0.0.2:8080", tls=False, down=1200)
    answer = outgoing(branch(endpoints=[ENDPOINT, down]))
    (step,) = route_steps(answer, answer.branches[0], {"10.0.0.1:8080": "shop/web-1"}, grpc=False)
    assert step.message == (
        "random chooses among 2: shop/web-1 at 10.0.0.1:8080 (mTLS), "
        "10.0.0.2:8080 (plaintext, failed, passed over for 1.2 s)"
    )
    empty = outgoing(branch(refusal=NONE, endpoints=[]))
    (step,) = route_steps(empty, empty.branches[0], {}, grpc=False)
    assert (step.outcome, step.status, step.message) == ("refuse", 503, NONE.reason)


def test_a_denial_says_of_each_traffic_target_why_it_does_not_grant() -> None:
    targets = [
        Target(target="shop/other", names_caller=False, has_rules=False),
        Target(target="shop/mine", names_caller=True, has_rules=True),
    ]
    step = incoming(judged(refusal=DENIED, restricted=True, targets=targets))[-1]
    assert step.status == 403
    for part in ("shop/other names other callers", "shop/mine names the caller, but", "shop/void grants nothing"):
        assert part in step.message
    step = incoming(judged(refusal=DENIED, restricted=True, targets=targets), grpc=True)[-1]
    assert (step.status, step.grpc_status, refusal_text(step)) == (200, 7, " with gRPC status 7 PERMISSION_DENIED")
    plain = judged(refusal=DENIED, restricted=True, targets=targets, peer=None)
    assert "proves no identity" in incoming(plain, tls=False)[-1].message


def test_the_mode_that_denies_everything_is_what_decides_where_no_target_is() -> None:
    answer = judged(refusal=DENIED, restricted=True)
    step = server_steps(answer, 8080, "x", "deny", [], tls=True, grpc=False)[-1]
    assert step.object == "MeshConfig accessControlMode"


def test_the_limit_that_refuses_is_the_last_step() -> None:
    refusal = Refusal(reason="rate limit exceeded", status=503, grpc_status=8)
    limits = [limit(), limit(admits=False, policy="shop/small"), limit(policy="shop/late")]
    found = incoming(judged(limits=limits, limited=Limited(ratelimit="shop/small", refusal=refusal)))
    assert [step.object for step in found if step.step == "limit"] == ["RateLimit shop/rl", "RateLimit shop/small"]
    assert (found[-1].outcome, found[-1].status) == ("refuse", 503)
    assert "10 r/m, burst 2; with this one 1.5 requests above it" in found[-1].message


def test_the_longest_delay_is_what_delays() -> None:
    limits = [limit(wait=20), limit(wait=500, policy="shop/slow")]
    found = incoming(judged(limits=limits, limited=Limited(ratelimit="shop/slow", wait=500)))
    assert verdict_of(found) == "allowed"
    decides = deciding_step(found)
    assert decides is not None
    assert (decides.outcome, decides.object) == ("delay", "RateLimit shop/slow")
    assert summary("allowed", found, []).startswith("allowed, but delayed: delayed by 500 ms")


def test_tcp_is_closed_without_a_status() -> None:
    answer = Incoming(version=1, svid_expires=1e12, closed="access denied", restricted=True)
    (step,) = incoming(answer)
    assert (step.step, step.outcome, step.status) == ("access", "refuse", None)
    assert summary("refused", [step], []).startswith("refused, by closing the connection: access denied")
    passed = incoming(Incoming(version=1, svid_expires=1e12, mtls_mode="permissive", restricted=True, granted="shop/t"))
    assert passed[-1].object == "TrafficTarget shop/t"


def test_a_sidecar_without_a_state_refuses() -> None:
    empty = Outgoing(version=0, svid_expires=0)
    assert verdict_of(common(empty)) == "refused"
    assert verdict_of(incoming(Incoming(version=0, svid_expires=0))) == "refused"


@pytest.mark.parametrize(
    ("proved", "expires", "outcome"),
    [("spiffe://a/b", 100, "pass"), ("spiffe://a/c", 100, "refuse"), ("spiffe://a/b", 10, "refuse"), ("", 0, "refuse")],
)
def test_the_called_sidecar_must_prove_what_is_expected(proved: str, expires: float, outcome: str) -> None:
    answer = Incoming(version=1, svid_expires=expires, spiffe_id=proved)
    step = handshake("spiffe://a/b", answer, 50)
    assert (step.outcome, step.status) == (outcome, None if outcome == "pass" else 502)


def test_the_summary_of_a_mixed_verdict_says_which_share_gets_which_verdict() -> None:
    denied = Step(step="access", outcome="refuse", message="no", status=403)
    fine = Step(step="access", message="it is granted")

    def route(share: float, cluster: str, *called: tuple[str, Step]) -> Route:
        callees = [Callee(pod=pod, pods=1, verdict=verdict_of([step]), steps=[step]) for pod, step in called]
        verdict = combined(callee.verdict for callee in callees)
        return Route(share=share, cluster=cluster, verdict=verdict, steps=[], callees=callees)

    routes = [route(0.9, "shop/a:80", ("shop/a-1", fine)), route(0.1, "shop/b:80", ("shop/b-1", denied))]
    assert combined(each.verdict for each in routes) == "mixed"
    assert summary("mixed", [], routes) == (
        "it depends: 90 % of requests to shop/a:80: allowed, 10 % of requests to shop/b:80: refused with 403: no"
    )
    pods = [route(1.0, "shop/a:80", ("shop/a-1", fine), ("shop/a-2", denied))]
    assert pods[0].verdict == "mixed"
    assert summary("mixed", [], pods) == (
        "it depends: some, at shop/a-1: allowed, some, at shop/a-2: refused with 403: no"
    )
