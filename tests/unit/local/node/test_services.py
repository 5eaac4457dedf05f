"""Which pods are behind a service, and the kernel rules made of that."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import EndpointSlice, Service
from nginx_mesh.local.net.networks import DEFAULT
from nginx_mesh.local.node.kubeproxy import render_rules
from nginx_mesh.local.node.services import Backend, Port, ServiceEntry, resolve_services


def pod(name: str, *, ready: bool = True, labels: dict[str, str] | None = None, **fields: Any) -> Pod:
    status = {
        "phase": fields.pop("phase", "Running"),
        "podIP": "10.244.0.5",
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    metadata = {"name": name, "namespace": fields.pop("namespace", "ns"), "labels": labels or {"app": "web"}}
    if "deleted" in fields:
        metadata["deletionTimestamp"] = fields.pop("deleted")
    ports = [{"containerPort": 8080, "name": "http"}, {"containerPort": 9090, "name": "http", "protocol": "UDP"}]
    spec = {"containers": [{"name": "c", "ports": ports}], **fields}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": status}, Pod)


def service(*ports: dict[str, Any], **spec: Any) -> Service:
    spec = {"selector": {"app": "web"}, "clusterIP": "10.96.0.1", "ports": list(ports) or [{"port": 80}], **spec}
    return msgspec.convert({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}, Service)


def resolved(service: Service, *pods: Pod) -> ServiceEntry:
    (entry,) = resolve_services([service], pods)
    return entry


def test_only_living_pods_that_match_in_the_same_namespace_count() -> None:
    others = [
        pod("other-label", labels={"app": "db"}),
        pod("other-namespace", namespace="else"),
        pod("done", phase="Succeeded"),
        pod("going", deleted="2026-01-01T00:00:00Z"),
    ]
    assert len(resolved(service(), pod("a"), *others).backends) == 1
    assert resolved(service(selector={}), pod("a")).backends == ()


def test_unready_pods_take_connections_only_where_the_service_publishes_them() -> None:
    assert resolved(service(), pod("a", ready=False)).active == ()
    assert len(resolved(service(publishNotReadyAddresses=True), pod("a", ready=False)).active) == 1


@pytest.mark.parametrize(
    ("port", "target"),
    [
        ({"port": 80}, 80),
        ({"port": 80, "targetPort": 8000}, 8000),
        ({"port": 80, "targetPort": "http"}, 8080),
        ({"port": 80, "targetPort": "http", "protocol": "UDP"}, 9090),
        ({"port": 80, "targetPort": "8001"}, 8001),
        ({"port": 80, "targetPort": "none"}, 0),
    ],
)
def test_target_ports(port: dict[str, Any], target: int) -> None:
    assert resolved(service(port), pod("a")).backends[0].ports == (target,)


def test_only_pods_of_the_services_subdomain_have_a_name_below_it() -> None:
    assert resolved(service(), pod("a", hostname="a", subdomain="web")).backends[0].hostname == "a"
    assert resolved(service(), pod("a", hostname="a", subdomain="else")).backends[0].hostname == ""


def test_slices_are_behind_services_without_a_selector_only() -> None:
    slice_ = msgspec.convert(
        {
            "metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.1.0.1"], "hostname": "a"},
                {"addresses": ["10.1.0.2"], "conditions": {"ready": False}},
            ],
            "ports": [{"name": "http", "port": 8080}, {"name": "http", "port": 9090, "protocol": "UDP"}],
        },
        EndpointSlice,
    )
    ports = ({"port": 80, "name": "http"}, {"port": 81, "name": "none"})
    (entry,) = resolve_services([service(*ports, selector={})], [pod("a")], [slice_])
    assert entry.active == (Backend(addresses=("10.1.0.1",), ports=(8080, 0), ready=True, hostname="a"),)
    assert len(entry.backends) == 2
    (entry,) = resolve_services([service(*ports)], [pod("a")], [slice_])
    assert [backend.addresses for backend in entry.backends] == [("10.244.0.5",)]
    (entry,) = resolve_services([service(*ports, selector={}, ipFamilies=["IPv6"])], [], [slice_])
    assert entry.backends == ()


def entry(*targets: str, cluster_ip: str = "10.96.0.1", port: int = 80) -> ServiceEntry:
    return ServiceEntry(
        namespace="ns",
        name="web",
        cluster_ips=(cluster_ip,),
        ports=(Port(name="", protocol="TCP", number=port),),
        backends=tuple(Backend(addresses=(target,), ports=(8080,), ready=True) for target in targets),
    )


def test_rules_translate_to_pods_of_the_same_ip_version_only() -> None:
    rules = render_rules([entry("10.244.0.5", "fd00::5", "10.244.0.6")], DEFAULT)
    assert "numgen random mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.0.6 . 8080 }" in rules
    assert "fd00::5" not in rules


def test_the_first_of_two_services_with_one_address_wins() -> None:
    rules = render_rules([entry("10.244.0.5"), entry("10.244.0.6")], DEFAULT)
    assert rules.count("10.96.0.1 . tcp . 80") == 1
    assert "10.244.0.6" not in rules


def test_services_without_backends_are_left_to_the_rule_that_rejects() -> None:
    rules = render_rules([entry()], DEFAULT)
    assert "10.96.0.1" not in rules
    assert "ip daddr 10.96.0.0/16 reject" in rules


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_name_of_the_users_gets_into_the_rules(namespace: str, name: str, port: str) -> None:
    plain = entry("10.244.0.5")
    named = msgspec.structs.replace(
        plain, namespace=namespace, name=name, ports=(Port(name=port, protocol="TCP", number=80),)
    )
    assert render_rules([named], DEFAULT) == render_rules([plain], DEFAULT)


@pytest.mark.parametrize("bad", ["10.96.0.1; flush ruleset", "", "fd00::1/64", "::1%eth0 }"])
def test_what_is_no_address_gets_no_further(bad: str) -> None:
    for broken in (entry("10.244.0.5", cluster_ip=bad), entry(bad)):
        try:
            rules = render_rules([broken], DEFAULT)
        except ValueError:
            continue
        assert bad not in rules
        assert re.fullmatch(r"[\w\s.:;{}@/,-]*", rules)
