"""The sample application works without a mesh, so that a fault in `make demo` is one of the mesh."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.eventually import wait_until

APP = Path(__file__).parents[3] / "examples" / "demo" / "app"
OBJECTS = [obj for file in sorted(APP.iterdir()) for obj in yaml.safe_load_all(file.read_text())]
CODE = {obj["metadata"]["namespace"]: obj["data"] for obj in OBJECTS if obj["kind"] == "ConfigMap"}
DEPLOYMENTS = [obj for obj in OBJECTS if obj["kind"] == "Deployment"]


def test_the_application_has_the_parts_that_the_demo_is_about() -> None:
    services = {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in OBJECTS if obj["kind"] == "Service"}
    assert services == {
        ("shop", "front"),
        ("shop", "catalogue"),
        ("shop", "pricing"),
        ("data", "inventory"),
        ("data", "orders"),
    }
    injected = {
        obj["metadata"]["name"]: "injector.nsm.nginx.com/auto-inject" in obj["metadata"].get("labels", {})
        for obj in OBJECTS
        if obj["kind"] == "Namespace"
    }
    assert injected == {"shop": True, "data": True, "outside": False}
    assert {d["metadata"]["name"] for d in DEPLOYMENTS} >= {"catalogue-v1", "catalogue-v2", "catalogue-v3", "visitor"}


def test_every_workload_has_its_own_service_account_and_runs_code_that_is_mounted() -> None:
    accounts = {
        (obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in OBJECTS if obj["kind"] == "ServiceAccount"
    }
    used = set()
    for deployment in DEPLOYMENTS:
        namespace, spec = deployment["metadata"]["namespace"], deployment["spec"]["template"]["spec"]
        used.add((namespace, spec["serviceAccountName"]))
        [container] = spec["containers"]
        assert container["image"] == "python:3.11"
        assert container["command"][0] == "python3"
        assert Path(container["command"][1]).name in CODE[namespace]
        assert container["readinessProbe"]
    assert used == accounts


def test_code_that_namespaces_cannot_share_is_the_same_in_each() -> None:
    assert len({code["web.py"] for code in CODE.values()}) == 1
    assert CODE["shop"]["calls.py"] == CODE["outside"]["calls.py"]


class Application:
    """Programs of the application on loopback, each at a free port."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        for namespace, files in CODE.items():
            (directory / namespace).mkdir()
            for name, text in files.items():
                (directory / namespace / name).write_text(text)
        self._directory = directory
        self._stack = stack

    def start(self, program: str, **env: str) -> str:
        """Run NAMESPACE/NAME.py; returns its address once it listens."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, str(self._directory / program)],
            env={"PATH": os.environ["PATH"], "PORT": str(port), "PAUSE": "0.01", **env},
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

        def listens() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                assert process.poll() is None, f"{program} has ended"
                return False
            return True

        wait_until(listens, f"{program} listens", 20)
        return f"127.0.0.1:{port}"


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    with ExitStack() as stack:
        yield Application(tmp_path, stack)


def report(address: str, query: str = "") -> dict[tuple[str, str, str], dict[str, Any]]:
    with urlopen(f"http://{address}/report{query}", timeout=10) as answer:
        edges = json.loads(answer.read())["edges"]
    return {(edge["from"], edge["to"], edge["protocol"]): edge for edge in edges}


def test_every_call_of_a_page_succeeds_and_is_reported(application: Application) -> None:
    backends = {
        "CATALOGUE": application.start("shop/catalogue.py", VERSION="v2"),
        "PRICING": application.start("shop/pricing.py"),
        "INVENTORY": application.start("data/inventory.py"),
        "ORDERS": application.start("data/orders.py"),
    }
    front = application.start("shop/front.py", **backends)
    driver = application.start("shop/driver.py", FRONT=front)
    visitor = application.start("outside/visitor.py", FRONT=front, INVENTORY=backends["INVENTORY"])
    expected = {
        ("driver", "front", "http"),
        ("front", "catalogue", "http"),
        ("front", "pricing", "grpc"),
        ("front", "inventory", "tcp"),
        ("front", "orders", "http"),
    }
    page_call = ("driver", "front", "http")

    def pages() -> int:
        calls: int = report(driver).get(page_call, {"calls": 0})["calls"]
        return calls

    wait_until(lambda: pages() >= 30 and report(driver).keys() >= expected, "calls of every kind are reported", 30)
    edges = report(driver, "?reset=1")
    assert set(edges) == expected
    for edge in edges.values():
        assert edge["ok"] == edge["calls"] > 0, edge["errors"]
        assert 0 < edge["p50_ms"] <= edge["p99_ms"]
        assert edge["callers"] == {}
    assert set(edges["front", "catalogue", "http"]["versions"]) == {"v2"}
    wait_until(pages, "calls are reported again after the reset", 30)
    assert pages() < edges[page_call]["calls"]
    wait_until(lambda: {edge["ok"] for edge in report(visitor).values()} - {0}, "the visitor is answered", 30)


def test_failures_and_callers_are_reported(application: Application) -> None:
    with refusing_server() as nothing:
        front = application.start(
            "shop/front.py", CATALOGUE=nothing, PRICING=nothing, INVENTORY=nothing, ORDERS=nothing
        )
        answer = page(front, "spiffe://example.org/ns/shop/sa/driver")
    assert answer["caller"] == "spiffe://example.org/ns/shop/sa/driver"
    assert all(call["error"] for call in answer["calls"])


@contextmanager
def refusing_server() -> Iterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused, and the port stays ours
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def page(address: str, caller: str) -> dict[str, Any]:
    request = Request(f"http://{address}/page", headers={"X-Forwarded-Client-Spiffe-Id": caller})
    with urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server
        result: dict[str, Any] = json.loads(answer.read())
    return result
