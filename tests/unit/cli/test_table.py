"""Tables as kubectl prints them."""

from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.cli.table import duration, pod_phase, table


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "local"},
        "status": status,
    }


def test_pods_print_like_kubectl() -> None:
    statuses = [
        {"name": "a", "ready": True, "state": {"running": {}}, "restartCount": 3},
        {"name": "b", "ready": False, "state": {"waiting": {}}, "restartCount": 0},
    ]
    rows = [pod("web-1", phase="Running", podIP="10.244.0.2", containerStatuses=statuses), pod("db")]
    assert table("Pod", rows, now=130.0) == (
        "NAME    READY   STATUS    RESTARTS   AGE\n"
        "web-1   1/2     Running   3          2m10s\n"
        "db      0/2     Pending   0          2m10s"
    )
    assert table("Pod", rows[:1], now=5.0, wide=True, with_namespace=True).splitlines() == [
        "NAMESPACE   NAME    READY   STATUS    RESTARTS   AGE   IP           NODE",
        "default     web-1   1/2     Running   3          5s    10.244.0.2   local",
    ]


def test_slices_print_like_kubectl() -> None:
    addresses = [f"10.1.0.{number}" for number in range(1, 6)]
    row = {
        "kind": "EndpointSlice",
        "metadata": {"name": "far-1", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "http", "port": 8080}, {"port": 7000}],
    }
    empty = {**row, "endpoints": [], "ports": []}
    assert table("EndpointSlice", [row, empty], now=5.0).splitlines()[1:] == [
        "far-1   IPv4          8080,7000   10.1.0.1,10.1.0.2,10.1.0.3 + 2 more...   5s",
        "far-1   IPv4          <unset>     <unset>                                  5s",
    ]


def policy(kind: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "p", "namespace": "shop"}, "spec": spec}


def cells(row: dict[str, Any]) -> dict[str, str]:
    """The cells of a wide table by their titles."""
    titles, values = table(row["kind"], [row], now=5.0, wide=True).splitlines()
    return dict(zip(titles.replace("IN FORCE", "FORCE").split(), values.split(), strict=True))


def test_policies_say_whom_they_are_about_and_name_other_namespaces() -> None:
    account = {"kind": "ServiceAccount", "namespace": "shop"}
    sources = [{**account, "name": "front"}, {"kind": "ServiceAccount", "namespace": "ops", "name": "probe"}]
    rules = [{"kind": "HTTPRouteGroup", "name": "api", "matches": ["read", "list"]}, {"kind": "TCPRoute", "name": "t"}]
    one = cells(policy("TrafficTarget", destination={**account, "name": "db", "port": 5432}, sources=sources))
    assert (one["DESTINATION"], one["SOURCES"], one["RULES"]) == ("db:5432", "front,ops/probe", "<all>")
    two = cells(policy("TrafficTarget", destination={**account, "name": "db"}, sources=[], rules=rules))
    assert (two["DESTINATION"], two["SOURCES"], two["RULES"]) == ("db", "<none>", "api:read:list,t")


def test_policies_say_what_they_do_when_asked_for_more() -> None:
    service = {"kind": "Service", "name": "web"}
    limit = policy("RateLimit", destination=service, rate="10r/s", burst=3, delay="nodelay")
    assert cells(limit) | {"DESTINATION": "service/web", "BURST": "3", "DELAY": "nodelay"} == cells(limit)
    assert cells(limit)["SOURCES"] == "<all>"
    limit["spec"]["sources"] = [{"kind": "Deployment", "name": "front", "namespace": "shop"}]
    assert cells(limit)["SOURCES"] == "deployment/front"
    foreign = {**service, "namespace": "other"}
    breaker = policy("CircuitBreaker", destination=foreign, errors=3, timeoutSeconds=30)
    assert (cells(breaker)["DESTINATION"], cells(breaker)["FALLBACK"]) == ("service/other/web", "<none>")
    breaker["spec"]["fallback"] = {"service": "shop/spare"}
    assert cells(breaker)["FALLBACK"] == "shop/spare:80"
    split = policy("TrafficSplit", service="web", backends=[{"service": "old", "weight": 1}], matches=[{"name": "api"}])
    assert (cells(split)["BACKENDS"], cells(split)["MATCHES"]) == ("old=1", "api")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Succeeded"}, "Succeeded"),
        ({"initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}, "Init:0/1"),
        (
            {
                "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                    {"name": "j", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}},
                ]
            },
            "Init:Error",
        ),
        (
            {"containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            "CrashLoopBackOff",
        ),
    ],
)
def test_the_status_column_says_what_is_in_the_way(status: dict[str, Any], expected: str) -> None:
    assert pod_phase(pod("x", **status)) == expected


def test_a_pod_being_deleted_is_terminating() -> None:
    going = pod("x", phase="Running")
    going["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z"
    assert pod_phase(going) == "Terminating"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (192, "3m12s"),
        (3000, "50m"),
        (11000, "3h3m"),
        (40000, "11h"),
        (200000, "2d"),
    ],
)
def test_ages_print_like_kubectl(seconds: int, expected: str) -> None:
    assert duration(seconds) == expected
