"""CircuitBreakers are compiled to entries of the state."""

from __future__ import annotations

import pytest

from nginx_mesh.protocol.state import Breaker, Destination

from .compiled import compiled, problems
from .objects import breaker, pod, port, service

WEB, SPARE = service("web", port(80)), service("spare", port(80), vips=["10.96.0.2"])
KEY = "breaker/default/web:80"


def test_each_port_has_a_circuit() -> None:
    policy = breaker("b", "web", errors=3, seconds=30, fallback="default/spare")
    state = compiled(service("web", port(80), port(81, "http-b")), SPARE, policy)
    assert state[KEY] == Breaker(breaker="default/b", errors=3, timeout_ms=30_000, fallback="default/spare:80")
    assert state["breaker/default/web:81"] == state[KEY]
    assert problems(policy, WEB, SPARE) == []


def test_a_policy_may_name_a_service_of_another_namespace() -> None:
    policy = breaker("b", "web", namespace="prod", destination_namespace="default", fallback="spare")
    entry = compiled(WEB, SPARE, policy)[KEY]
    assert entry == Breaker(breaker="prod/b", errors=3, timeout_ms=30_000, fallback="default/spare:80")


def test_the_oldest_of_several_breakers_applies() -> None:
    old, young = (breaker(name, "web", errors=n, created=f"2024-01-0{n}") for n, name in ((1, "z"), (2, "a")))
    entry = compiled(young, old, WEB)[KEY]
    assert isinstance(entry, Breaker)
    assert entry.errors == 1
    assert "CircuitBreaker default/z" in problems(young, old, WEB)[0]
    assert problems(old, young, WEB) == []


@pytest.mark.parametrize(("errors", "seconds"), [(0, 30), (-1, 30), (3, 0)])
def test_numbers_below_1_make_no_circuit(errors: int, seconds: int) -> None:
    policy = breaker("b", "web", errors=errors, seconds=seconds)
    assert KEY not in compiled(WEB, policy)
    assert "as if there were no CircuitBreaker" in problems(policy, WEB)[0]


def test_numbers_above_the_limits_of_sidecars_are_reduced() -> None:
    policy = breaker("b", "web", errors=1 << 40, seconds=1 << 40)
    assert compiled(WEB, policy)[KEY] == Breaker(breaker="default/b", errors=10_000, timeout_ms=(1 << 31) - 1)
    assert len(problems(policy, WEB)) == 2


@pytest.mark.parametrize(
    ("fallback", "number", "problem"),
    [
        ("default/web", 80, "spec.fallback.service is the destination itself"),
        ("web", 81, "spec.fallback.service is the destination itself"),
        ("prod/spare", 80, "spec.fallback.service Service prod/spare is not in the namespace of Service default/web"),
        ("default/none", 80, "spec.fallback.service there is no Service default/none in the mesh"),
        ("default/spare", 81, "spec.fallback.port Service default/spare has no TCP port 81"),
    ],
)
def test_an_unusable_fallback_is_ignored_and_reported(fallback: str, number: int, problem: str) -> None:
    policy = breaker("b", "web", fallback=fallback, fallback_port=number)
    objects = (WEB, SPARE, service("spare", port(80), namespace="prod"), policy)
    entry = compiled(*objects)[KEY]
    assert isinstance(entry, Breaker)
    assert entry.fallback == ""
    assert problems(policy, *objects[:-1]) == [f"{problem}: callers are refused while the circuit is open"]


def test_a_fallback_of_another_protocol_is_reported() -> None:
    policy = breaker("b", "web", fallback="default/spare", fallback_port=25)
    assert problems(policy, WEB, service("spare", port(25))) == [
        "spec.fallback.port is tcp, port 80 of Service default/web is http"
    ]


def test_a_breaker_without_its_service_is_reported() -> None:
    assert problems(breaker("b", "web")) == ["spec.destination there is no Service default/web in the mesh"]


def test_pods_of_a_headless_service_use_its_circuit_and_its_fallback_has_a_cluster() -> None:
    state = compiled(
        service("web", port(80, target=8080), vips=[]),
        service("spare", port(80), vips=[]),
        pod("web-0", labels={"app": "web"}),
        breaker("b", "web", fallback="default/spare"),
    )
    destination = state["destination/10.0.0.1:8080"]
    assert isinstance(destination, Destination)
    assert destination.service == "default/web:80"
    assert {KEY, "cluster/default/spare:80"} <= state.keys()
    assert "cluster/default/web:80" not in state
