"""The demo fails when the mesh does not do what the demo shows."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ADDRESSES = {
    "pods": {
        "10.0.0.1": "driver",
        "10.0.0.2": "front",
        "10.0.0.3": "catalogue",
        "10.0.0.4": "inventory",
        "10.0.0.9": "visitor",
    },
    "services": {"10.96.0.1": "front", "10.96.0.2": "inventory", "fd00::1": "front"},
}
ID = "spiffe://example.org/ns/{}/sa/{}".format
FRONT, DRIVER, INVENTORY = ID("shop", "front"), ID("shop", "driver"), ID("data", "inventory")


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_script", Path(__file__).parents[3] / "scripts" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_script"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def line(client: str, destination: str, *, client_id: str = "", upstream_id: str = "") -> str:
    return json.dumps(
        {"client": client, "destination": destination, "client_id": client_id, "upstream_id": upstream_id}
    )


def healthy(demo: ModuleType) -> tuple[Any, Any]:
    """A report and identities with nothing to complain about."""
    report, verified = {}, {}
    for source, target, protocol in demo.EDGES:
        callers = {} if protocol == "tcp" else {demo.spiffe_id(source): 9}
        versions = {"v1": 3, "v2": 3, "v3": 3} if target == "catalogue" else {}
        report[source, target, protocol] = demo.Calls(9, 9, 1.0, 2.0, callers, versions, {})
        verified[source, target] = demo.VerifiedIds({demo.spiffe_id(target)}, {demo.spiffe_id(source)})
    return report, verified


def test_identities_come_from_both_ends_of_a_call(demo: ModuleType) -> None:
    logs = {
        "driver": [
            "2026/01/01 error: not JSON",
            line("10.0.0.1", "10.96.0.1:80", upstream_id=FRONT),
            line("10.0.0.1", "[fd00::1]:80", upstream_id=FRONT),
        ],
        "front": [line("10.0.0.1", "10.0.0.2:8080", client_id=DRIVER), line("10.0.0.9", "10.0.0.2:8080")],
        "inventory": [line("10.0.0.2", "10.0.0.4:7000", client_id=FRONT)],
    }

    assert demo.identities(logs, demo.Addresses(**ADDRESSES)) == {
        ("driver", "front"): demo.VerifiedIds({FRONT}, {DRIVER}),
        ("front", "inventory"): demo.VerifiedIds(set(), {FRONT}),
    }


def test_a_healthy_mesh_has_no_faults(demo: ModuleType) -> None:
    assert list(demo.mesh_faults(*healthy(demo))) == []


def test_a_failed_call_is_a_fault(demo: ModuleType) -> None:
    report, verified = healthy(demo)
    callers = {demo.spiffe_id("front"): 8}
    report["front", "orders", "http"] = demo.Calls(9, 8, 1.0, 2.0, callers, {}, {"HTTP 503": 1})

    assert list(demo.mesh_faults(report, verified)) == ["front → orders: 1 of 9 calls failed: HTTP 503"]


def test_no_traffic_is_a_fault(demo: ModuleType) -> None:
    report, verified = healthy(demo)
    del report["front", "inventory", "tcp"]

    assert list(demo.mesh_faults(report, verified)) == ["front → inventory: no calls"]


@pytest.mark.parametrize("proved", [set(), {INVENTORY, DRIVER}, {DRIVER}])
def test_an_identity_that_was_not_verified_is_a_fault(demo: ModuleType, proved: set[str]) -> None:
    report, verified = healthy(demo)
    verified["front", "inventory"] = demo.VerifiedIds(proved, {FRONT})
    [fault] = demo.mesh_faults(report, verified)
    assert fault.startswith("front → inventory: the client's sidecar verified")

    verified["front", "inventory"] = demo.VerifiedIds({INVENTORY}, proved)
    [fault] = demo.mesh_faults(report, verified)
    assert fault.startswith("front → inventory: the server's sidecar verified")


def test_a_call_without_the_callers_id_at_the_application_is_a_fault(demo: ModuleType) -> None:
    report, verified = healthy(demo)
    report["front", "pricing", "grpc"] = demo.Calls(9, 9, 1.0, 2.0, {FRONT: 8}, {}, {})

    [fault] = demo.mesh_faults(report, verified)
    assert fault.startswith("front → pricing: the application was told 8 times")


def test_a_version_that_gets_no_calls_is_a_fault(demo: ModuleType) -> None:
    report, verified = healthy(demo)
    report["front", "catalogue", "http"].versions.pop("v3")

    assert list(demo.mesh_faults(report, verified)) == ["catalogue: v1, v2 answered, not v1, v2, v3"]


@pytest.mark.parametrize(
    ("ok", "let_in_is_fault", "refused_is_fault"), [(9, False, True), (8, True, True), (0, True, False)]
)
def test_the_caller_outside_of_the_mesh_must_be_accepted_or_refused_as_expected(
    demo: ModuleType, ok: int, let_in_is_fault: bool, refused_is_fault: bool
) -> None:
    report = {edge: demo.Calls(9, ok, None, None, {}, {}, {"closed": 9 - ok}) for edge in demo.VISITOR_EDGES}

    assert bool(list(demo.visitor_faults(report, refused=False))) is let_in_is_fault
    assert bool(list(demo.visitor_faults(report, refused=True))) is refused_is_fault
    assert list(demo.visitor_faults({}, refused=True))


def test_an_identity_of_the_caller_outside_of_the_mesh_is_a_fault(demo: ModuleType) -> None:
    report = {edge: demo.Calls(9, 9, 1.0, 1.0, {FRONT: 9}, {}, {}) for edge in demo.VISITOR_EDGES}

    assert list(demo.visitor_faults(report, refused=False))
