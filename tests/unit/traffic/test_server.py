"""The Traffic Metrics API over HTTP, as clients of Kubernetes expect it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.traffic.documents import API_VERSION, ROOT, parse_quantity, quantity
from nginx_mesh.traffic.flows import Counts, Flow
from nginx_mesh.traffic.measure import TrafficQuery
from nginx_mesh.traffic.server import SourceError, TrafficMetrics

BASE = f"/apis/{API_VERSION}"
FLOWS = [
    Flow(
        {"namespace": "default", "pod": "reviews-1", "deployment": "reviews"},
        {"namespace": "default", "pod": "ratings-1", "deployment": "ratings"},
        Counts(9, 1, {1.0: 0, 2.0: 5, 5.0: 10, float("inf"): 10}),
    )
]
Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async def source(_: TrafficQuery) -> Sequence[Flow]:
        if getattr(request, "param", None):
            raise SourceError(request.param)
        return FLOWS

    app = web.Application()
    app.add_subapp(ROOT, TrafficMetrics(source, clock=lambda: 1_700_000_000).application())
    async with TestClient(TestServer(app)) as found:
        yield found


async def get(client: Client, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == status
        return await answer.json()


async def test_an_edge_has_the_form_of_the_smi_specification(client: Client) -> None:
    path = f"{BASE}/namespaces/default/deployments/reviews/edges"
    assert await get(client, path) == {
        "kind": "TrafficMetricsList",
        "apiVersion": "metrics.smi-spec.io/v1alpha1",
        "metadata": {"selfLink": path},
        "resource": {"kind": "Deployment", "namespace": "default", "name": "reviews"},
        "items": [
            {
                "kind": "TrafficMetrics",
                "apiVersion": "metrics.smi-spec.io/v1alpha1",
                "metadata": {
                    "name": "reviews",
                    "namespace": "default",
                    "selfLink": path,
                    "creationTimestamp": "2023-11-14T22:13:20Z",
                },
                "timestamp": "2023-11-14T22:13:20Z",
                "window": "30s",
                "resource": {"kind": "Deployment", "namespace": "default", "name": "reviews"},
                "edge": {
                    "direction": "to",
                    "resource": {"kind": "Deployment", "namespace": "default", "name": "ratings"},
                },
                "metrics": [
                    {"name": "p99_response_latency", "unit": "ms", "value": "4940m"},
                    {"name": "p90_response_latency", "unit": "ms", "value": "4400m"},
                    {"name": "p50_response_latency", "unit": "ms", "value": "2"},
                    {"name": "success_count", "value": "9"},
                    {"name": "failure_count", "value": "1"},
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/namespaces", ["default", "default"]),
        ("/namespaces/default", ["default", "default"]),
        ("/namespaces/default/edges", ["default", "default"]),
        ("/namespaces/default/pods", ["ratings-1", "reviews-1"]),
        ("/namespaces/default/deployments/ratings", ["ratings"]),
        ("/namespaces/other/deployments", []),
        ("/namespaces/default/statefulsets", []),
        ("/namespaces/default/daemonsets/none/edges", []),
        ("/deployments", ["ratings", "reviews"]),
    ],
)
async def test_lists(client: Client, path: str, names: list[str]) -> None:
    found = await get(client, BASE + path)
    assert found["kind"] == "TrafficMetricsList"
    assert [item["resource"]["name"] for item in found["items"]] == names


@pytest.mark.parametrize("path", ["/nodes", "/namespaces/default/services", "/namespaces/default/namespaces", "/a/b"])
async def test_an_unknown_path_is_a_status_error(client: Client, path: str) -> None:
    status = await get(client, BASE + path, 404)
    assert (status["kind"], status["reason"], status["code"]) == ("Status", "NotFound", 404)


@pytest.mark.parametrize("client", ["Prometheus does not answer"], indirect=True)
async def test_a_source_that_fails_is_a_status_error(client: Client) -> None:
    status = await get(client, f"{BASE}/namespaces", 503)
    assert (status["reason"], status["message"]) == ("ServiceUnavailable", "Prometheus does not answer")


async def test_discovery(client: Client) -> None:
    group = await get(client, ROOT)
    assert (group["kind"], group["preferredVersion"]["groupVersion"]) == ("APIGroup", API_VERSION)
    resources = {entry["name"]: entry for entry in (await get(client, BASE))["resources"]}
    assert set(resources) == {
        name + rest
        for name in ("namespaces", "pods", "deployments", "statefulsets", "daemonsets")
        for rest in ("", "/edges")
    }
    assert not resources["namespaces"]["namespaced"]
    assert resources["pods"]["namespaced"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2.969, "2969m"), (26, "26"), (1500, "1500"), (2000, "2k"), (0.0001, "0")],
)
def test_quantities_are_canonical(value: float, text: str) -> None:
    assert quantity(value) == text


@given(st.integers(0, 10**12))
def test_quantities_keep_thousandths(thousandths: int) -> None:
    assert parse_quantity(quantity(thousandths / 1000)) == pytest.approx(thousandths / 1000, abs=1e-9, rel=1e-12)
