"""Which Services are the mesh's, and what is behind them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from nginx_mesh.api.meta import Object
from nginx_mesh.cli.services import table
from nginx_mesh.control.services import services
from tests.unit.compile.compiled import catalog_of
from tests.unit.compile.objects import pod, port, service, slice_

PEER = "spiffe://other.example/ns/shop/sa/web"


def listed(*objects: Object, namespace: str | None = None, injects: bool = False) -> list[dict[str, Any]]:
    return services(catalog_of(*objects), "example.org", lambda _: injects, namespace)


def test_a_service_has_its_ports_and_the_pods_behind_it_ready_or_not() -> None:
    (found,) = listed(
        service("web", port(80, "http", target=8080), port(9000, "grpc-x", target="metrics")),
        pod("web-1", ips=["10.0.0.2"], labels={"app": "web"}, account="web", ready=False),
        pod("web-0", ips=["10.0.0.1"], labels={"app": "web"}, meshed=False),
        pod("other", ips=["10.0.0.3"]),
    )
    assert [(each["port"], each["protocol"]) for each in found["ports"]] == [(80, "http"), (9000, "grpc")]
    plain, meshed = found["upstreams"]
    assert plain == {"address": "10.0.0.1", "pod": "web-0", "ready": True, "meshed": False, "spiffe_id": None}
    assert (meshed["pod"], meshed["ready"]) == ("web-1", False)
    assert meshed["spiffe_id"] == "spiffe://example.org/ns/default/sa/web"


@pytest.mark.parametrize(("meshed", "injects", "listed_"), [(False, True, False), (True, False, True)])
def test_a_service_belongs_to_the_mesh_by_the_sidecars_behind_it(meshed: bool, injects: bool, listed_: bool) -> None:
    found = listed(service("web", port(80)), pod("web-0", labels={"app": "web"}, meshed=meshed), injects=injects)
    assert bool(found) is listed_


def test_a_service_with_nothing_behind_it_belongs_to_the_mesh_where_sidecars_are_injected() -> None:
    (found,) = listed(service("web", port(80)), injects=True)
    assert found["upstreams"] == []
    assert listed(service("web", port(80)), injects=False) == []


def test_a_remote_service_shows_the_identity_that_its_endpoints_prove() -> None:
    (found,) = listed(
        service("web", port(80, "http"), selector={}, annotations={"config.nsm.nginx.com/peer-spiffe-id": PEER}),
        slice_("web-1", "web", {"10.9.0.2": True, "10.9.0.1": True, "10.9.0.3": False}, {"http": 8080}),
    )
    assert [(each["address"], each["spiffe_id"]) for each in found["upstreams"]] == [
        ("10.9.0.1", PEER),
        ("10.9.0.2", PEER),
    ]


def test_services_are_sorted_and_those_of_one_namespace_can_be_chosen() -> None:
    objects = [service(name, port(80), namespace=where) for name, where in (("b", "x"), ("a", "y"), ("a", "x"))]
    assert [(each["namespace"], each["name"]) for each in listed(*objects, injects=True)] == [
        ("x", "a"),
        ("x", "b"),
        ("y", "a"),
    ]
    assert [each["name"] for each in listed(*objects, namespace="y", injects=True)] == ["a"]


def test_the_table_has_a_line_for_each_upstream_as_nginx_service_mesh_prints_it() -> None:
    found = listed(
        service("web", port(80, "http"), port(443, "tcp-tls")),
        service("empty", port(80)),
        pod("web-0", ips=["10.0.0.1"], labels={"app": "web"}),
        pod("web-1", ips=["10.0.0.2"], labels={"app": "web"}, meshed=False),
        injects=True,
    )
    assert [line.split() for line in table(found).splitlines()] == [
        ["Service", "Upstream", "Port"],
        ["default/empty", "<none>", "80"],
        ["default/web", "10.0.0.1", "80,443"],
        ["10.0.0.2", "80,443"],
    ]
    wide = table(found, wide=True).splitlines()
    assert wide[1].split()[2:] == ["80", "http", "<none>"]
    assert wide[2].split()[3:] == ["http,tcp", "web-0", "true", "spiffe://example.org/ns/default/sa/default"]
    assert wide[3].endswith("<no sidecar>")


def test_a_thousand_services_of_three_pods_are_listed_in_a_fraction_of_a_second() -> None:
    names = [f"s{number}" for number in range(1000)]
    catalog = catalog_of(
        *(service(name, port(80, "http"), vips=[f"10.96.{n // 250}.{n % 250 + 1}"]) for n, name in enumerate(names)),
        *(
            pod(f"{name}-{each}", ips=[f"10.{each}.{n // 250}.{n % 250 + 1}"], labels={"app": name})
            for n, name in enumerate(names)
            for each in range(3)
        ),
    )
    start = time.process_time()
    found = services(catalog, "example.org", lambda _: False)
    text = table(found)
    assert time.process_time() - start < 1
    assert len(text.splitlines()) == 3001
