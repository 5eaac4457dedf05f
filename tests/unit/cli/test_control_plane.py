"""What the control plane is asked, against a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.cli.control_plane import SUPPORT_DOCUMENTS, ControlPlane, lines
from nginx_mesh.cli.errors import ControlPlaneUnreachableError
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.traffic.measure import KINDS, TrafficQuery

from .unixserver import HttpServer

Ask = Callable[[ControlPlane], Any]
TRAFFIC = "/apis/metrics.smi-spec.io/v1alpha1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("ask", "asked", "answer"),
    [
        (lambda plane: plane.status(), "/mesh/status", {"well": True}),
        (lambda plane: plane.services(), "/mesh/services", [{"name": "web"}]),
        (lambda plane: plane.services("shop"), "/mesh/services?namespace=shop", []),
        (lambda plane: plane.config(), "/mesh/config", {"mtls": {}}),
        (lambda plane: plane.versions(), "/mesh/version", {"daemon": "1"}),
        (lambda plane: plane.identity_provider(), "/mesh/identity", {"provider": "embedded"}),
        (lambda plane: plane.identities(), "/mesh/identities", []),
        (lambda plane: plane.traffic(TrafficQuery(KINDS["namespaces"])), f"{TRAFFIC}/namespaces", {"items": []}),
        (
            lambda plane: plane.traffic(TrafficQuery(KINDS["deployments"], "a/b", "web", edges=True)),
            f"{TRAFFIC}/namespaces/a%2Fb/deployments/web/edges",
            {"items": []},
        ),
    ],
)
def test_each_question_is_one_request_whose_answer_comes_back(path: Path, ask: Ask, asked: str, answer: Any) -> None:
    with HttpServer({f"GET {asked.partition('?')[0]}": answer}).listening(path) as server:
        assert ask(ControlPlane(UnixHttpClient(path))) == answer
    assert server.requests == [("GET", asked, None)]


@pytest.mark.parametrize("name", SUPPORT_DOCUMENTS)
def test_every_document_of_a_support_package_can_be_asked_for(path: Path, name: str) -> None:
    with HttpServer({f"GET {SUPPORT_DOCUMENTS[name]}": [name]}).listening(path):
        assert ControlPlane(UnixHttpClient(path)).support_document(name) == [name]


def test_an_explanation_is_asked_for_with_the_whole_request(path: Path) -> None:
    with HttpServer({"POST /mesh/explain": {"summary": "allowed"}}).listening(path) as server:
        ControlPlane(UnixHttpClient(path)).explain(
            origin="web", to="api:80", namespace="shop", method="GET", path="/a?b", headers=[("x-user", "ü")]
        )
    inquiry = {
        "from": "web",
        "to": "api:80",
        "namespace": "shop",
        "method": "GET",
        "path": "/a?b",
        "headers": [["x-user", "ü"]],
    }
    assert server.requests == [("POST", "/mesh/explain", inquiry)]


def test_a_tap_sends_only_the_filters_that_were_given_and_yields_lines(path: Path) -> None:
    with HttpServer({"GET /mesh/tap": b'{"status": 200}\n\n{"skipped": 2}\n{"cut'}).listening(path) as server:
        found = ControlPlane(UnixHttpClient(path)).tap("web", namespace="shop", origin="a b", max_rps=5)
        assert list(found) == [b'{"status": 200}', b'{"skipped": 2}']
    assert server.requests == [("GET", "/mesh/tap?of=web&from=a+b&max_rps=5&namespace=shop", None)]


def test_sidecar_states_and_metrics_are_streams(path: Path) -> None:
    answers = {"GET /mesh/supportpkg": b'{"name": "a"}\n{"name": "b"}\n', "GET /metrics": b"up 1\n"}
    with HttpServer(answers).listening(path):
        plane = ControlPlane(UnixHttpClient(path))
        assert list(plane.sidecar_states()) == [b'{"name": "a"}', b'{"name": "b"}']
        assert plane.metrics() == b"up 1\n"


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda plane: plane.status(), ["well"]),
        (lambda plane: plane.config(), None),
        (lambda plane: plane.versions(), "1"),
        (lambda plane: plane.services(), {"items": []}),
        (lambda plane: plane.services(), ["web"]),
        (lambda plane: plane.identity_authority.facts(), []),
        (lambda plane: plane.identity_authority.bundles(), None),
    ],
)
def test_an_answer_of_another_shape_is_as_good_as_none(path: Path, ask: Ask, answer: Any) -> None:
    documents = ("/mesh/status", "/mesh/config", "/mesh/version", "/mesh/services", "/identity", "/identity/bundles")
    with (
        HttpServer({f"GET {each}": answer for each in documents}).listening(path),
        pytest.raises(ControlPlaneUnreachableError, match="is no"),
    ):
        ask(ControlPlane(UnixHttpClient(path)))


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))), st.integers(1, 7))
def test_lines_are_put_together_however_they_come(written: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in written)
    assert list(lines(_chunks(data, size))) == [line for line in written if line]


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))
