"""The destination of an address, and the endpoints of clusters, in each mTLS mode."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nginx_mesh.api.meta import Object
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.protocol.state import Cluster, Destination, Endpoint, MtlsMode, State

from .compiled import compiled
from .objects import pod, port, service, slice_

WEB = {"app": "web"}


def endpoints(state: State, key: str) -> dict[str, Endpoint]:
    cluster = state[key]
    assert isinstance(cluster, Cluster)
    return cluster.endpoints


def protocol(state: State, key: str) -> str:
    destination = state[key]
    assert isinstance(destination, Destination)
    return destination.protocol


def test_a_service_port_leads_to_its_ready_pods() -> None:
    state = compiled(
        service("web", port(80, target=8080)),
        pod("ready", labels=WEB, ips=["10.0.0.1"], account="web"),
        pod("starting", labels=WEB, ips=["10.0.0.2"], ready=False),
        pod("going", labels=WEB, ips=["10.0.0.3"], deleting=True),
        pod("done", labels=WEB, ips=["10.0.0.4"], phase="Succeeded"),
        pod("other", labels={"app": "db"}, ips=["10.0.0.5"]),
        pod("elsewhere", labels=WEB, ips=["10.0.0.6"], namespace="prod"),
    )
    assert state["destination/10.96.0.1:80"] == Destination(protocol="http", cluster="default/web:80")
    assert state["cluster/default/web:80"] == Cluster(
        lb_method="least_time",
        endpoints={
            "10.0.0.1:8080": Endpoint(
                tls=True,
                spiffe_id="spiffe://example.org/ns/default/sa/web",
                labels={"dst_pod": "ready", "dst_namespace": "default", "dst_service": "web"},
            )
        },
    )


PEER = "spiffe://other.example/ns/shop/sa/web"


def remote(peer: str | None = PEER, **options: Any) -> tuple[Object, ...]:
    annotations = {} if peer is None else {"config.nsm.nginx.com/peer-spiffe-id": peer}
    return (
        service("web", port(80, "http"), port(25, "tcp"), selector={}, annotations=annotations, **options),
        slice_("web-1", "web", {"10.1.0.1": True, "10.1.0.2": False, "fd00::1": True}, {"http": 8080, "tcp": 2525}),
    )


@pytest.mark.parametrize(("mode", "tls"), [("off", False), ("permissive", True), ("strict", True)])
def test_a_remote_services_endpoints_prove_the_identity_that_it_names(mode: MtlsMode, tls: bool) -> None:
    state = compiled(*remote(), mode=mode)
    peer = Endpoint(tls=tls, spiffe_id=PEER if tls else "", labels={"dst_service": "web", "dst_namespace": "default"})
    assert endpoints(state, "cluster/default/web:80") == {"10.1.0.1:8080": peer}
    assert endpoints(state, "cluster/default/web:25") == {"10.1.0.1:2525": peer}
    assert protocol(state, "destination/10.96.0.1:80") == "http"
    assert endpoints(state, "cluster/10.1.0.1:8080") == {"10.1.0.1:8080": peer}, "who dials it directly is told apart"
    assert protocol(state, "destination/10.1.0.1:2525") == "tcp"


def test_a_headless_remote_service_is_reached_by_its_endpoints_addresses() -> None:
    state = compiled(*remote(vips=[]))
    assert protocol(state, "destination/10.1.0.1:8080") == "http"
    assert endpoints(state, "cluster/[fd00::1]:2525")["[fd00::1]:2525"].spiffe_id == PEER
    assert "destination/10.1.0.2:8080" not in state


def test_a_service_without_selector_that_names_no_identity_is_outside_of_the_mesh() -> None:
    assert compiled(*remote(peer=None)) == {}


@pytest.mark.parametrize("peer", ["spiffe://other.example", "http://x/y", "spiffe://other.example/a//b", ""])
@pytest.mark.parametrize("mode", ["off", "permissive", "strict"])
def test_an_invalid_identity_of_a_remote_service_leaves_no_endpoint(peer: str, mode: MtlsMode) -> None:
    """A mistake in the annotation must not turn the calls into plaintext."""
    state = compiled(*remote(peer=peer), mode=mode)
    assert endpoints(state, "cluster/default/web:80") == {}
    assert endpoints(state, "cluster/10.1.0.1:8080") == {}


def test_a_pod_at_an_address_that_a_slice_claims_is_reached_as_itself() -> None:
    """A user who may write slices in one namespace must not redirect calls to pods of another."""
    state = compiled(*remote(), pod("mine", ips=["10.1.0.1"], namespace="prod", account="mine"))
    assert endpoints(state, "cluster/10.1.0.1:8080")["10.1.0.1:8080"].spiffe_id.endswith("/ns/prod/sa/mine")


def test_addresses_that_are_not_ready_can_be_published() -> None:
    state = compiled(
        service("web", port(80, target=8080), publish_not_ready=True), pod("starting", labels=WEB, ready=False)
    )
    assert list(endpoints(state, "cluster/default/web:80")) == ["10.0.0.1:8080"]


@pytest.mark.parametrize(
    ("mode", "reached"),
    [
        ("off", {"meshed": False, "off": False, "outside": False, "bypassed": False}),
        ("permissive", {"meshed": True, "off": False, "outside": False, "bypassed": False}),
        ("strict", {"meshed": True}),
    ],
)
def test_the_callers_mode_decides_whom_it_reaches_and_how(mode: MtlsMode, reached: dict[str, bool]) -> None:
    state = compiled(
        service("web", port(80, target=8080)),
        pod("meshed", labels=WEB, ips=["10.0.0.1"]),
        pod("off", labels=WEB, ips=["10.0.0.2"], annotations={"config.nsm.nginx.com/mtls-mode": "off"}),
        pod("outside", labels=WEB, ips=["10.0.0.3"], meshed=False),
        pod(
            "bypassed",
            labels=WEB,
            ips=["10.0.0.4"],
            annotations={"config.nsm.nginx.com/ignore-incoming-ports": "8080"},
        ),
        mode=mode,
    )
    found = endpoints(state, "cluster/default/web:80")
    assert {endpoint.labels["dst_pod"]: endpoint.tls for endpoint in found.values()} == reached
    assert {endpoint.tls == bool(endpoint.spiffe_id) for endpoint in found.values()} == {True}
    alone = {name: endpoints(state, f"cluster/10.0.0.{n}:8080") for n, name in enumerate(("meshed", "off"), 1)}
    assert bool(alone["off"]) == ("off" in reached)
    assert alone["meshed"]["10.0.0.1:8080"].tls == reached["meshed"]


def test_a_cluster_in_strict_mode_is_empty_without_endpoints_that_support_mtls() -> None:
    state = compiled(service("web", port(80, target=8080)), pod("out", labels=WEB, meshed=False), mode="strict")
    assert state["destination/10.96.0.1:80"] == Destination(protocol="http", cluster="default/web:80")
    assert endpoints(state, "cluster/default/web:80") == {}
    assert state["destination/10.0.0.1:8080"] == Destination(protocol="http", cluster="10.0.0.1:8080")
    assert endpoints(state, "cluster/10.0.0.1:8080") == {}


def test_a_service_without_a_selector_is_outside_the_mesh() -> None:
    assert compiled(service("kubernetes", port(443), selector={})) == {}


def test_named_target_ports_are_resolved_for_each_pod() -> None:
    state = compiled(
        service("web", port(80, target="web")),
        pod("old", labels=WEB, ips=["10.0.0.1"], ports=[(8080, "web")]),
        pod("new", labels=WEB, ips=["10.0.0.2"], ports=[(9090, "web")]),
        pod("without", labels=WEB, ips=["10.0.0.3"], ports=[(9090, "admin")]),
    )
    assert set(endpoints(state, "cluster/default/web:80")) == {"10.0.0.1:8080", "10.0.0.2:9090"}


def test_two_ports_of_a_service_may_have_one_target() -> None:
    state = compiled(service("web", port(80, target=8080), port(81, "http", target=8080)), pod("web", labels=WEB))
    for number in (80, 81):
        assert protocol(state, f"destination/10.96.0.1:{number}") == "http"
        assert list(endpoints(state, f"cluster/default/web:{number}")) == ["10.0.0.1:8080"]


def test_both_vips_of_a_service_reach_a_pod_once() -> None:
    dual = pod("dual", labels=WEB, ips=["10.0.0.1", "fd00::1"])
    only6 = pod("only6", labels=WEB, ips=["fd00::2"])
    for vips, expected in (
        (["10.96.0.1", "fd00:96::1"], {"10.0.0.1:8080", "[fd00::2]:8080"}),
        (["fd00:96::1", "10.96.0.1"], {"[fd00::1]:8080", "[fd00::2]:8080"}),
        (["10.96.0.1"], {"10.0.0.1:8080"}),
    ):
        state = compiled(service("web", port(80, target=8080), vips=vips), dual, only6)
        assert set(endpoints(state, "cluster/default/web:80")) == expected
        for vip in vips:
            where = f"[{vip}]" if ":" in vip else vip
            assert state[f"destination/{where}:80"] == Destination(protocol="http", cluster="default/web:80")


def test_addresses_are_in_canonical_form() -> None:
    state = compiled(service("web", port(80), vips=["FD00:0096::0001"]), pod("web", labels=WEB, ips=["FD00::000A"]))
    assert "destination/[fd00:96::1]:80" in state
    assert list(endpoints(state, "cluster/default/web:80")) == ["[fd00::a]:80"]


def test_a_pods_own_address_is_a_destination_ready_or_not() -> None:
    state = compiled(pod("db-0", ips=["10.0.0.1", "fd00::1"], ports=[(5432, "tcp-db")], ready=False))
    for where in ("10.0.0.1:5432", "[fd00::1]:5432"):
        assert state[f"destination/{where}"] == Destination(protocol="tcp", cluster=where)
        assert list(endpoints(state, f"cluster/{where}")) == [where]


def test_a_headless_service_gives_its_pods_their_protocol_and_no_cluster_of_its_own() -> None:
    state = compiled(service("web", port(9000, "grpc"), vips=[]), pod("web-0", labels=WEB, ports=[(9000, "")]))
    assert set(state) == {"destination/10.0.0.1:9000", "cluster/10.0.0.1:9000"}
    assert protocol(state, "destination/10.0.0.1:9000") == "grpc"
    assert endpoints(state, "cluster/10.0.0.1:9000")["10.0.0.1:9000"].labels["dst_service"] == "web"


def test_a_target_port_that_no_container_declares_is_a_destination_too() -> None:
    state = compiled(service("web", port(80, target=7000)), pod("web-0", labels=WEB, ports=[]))
    assert protocol(state, "destination/10.0.0.1:7000") == "http"


def test_services_that_disagree_make_a_pods_port_tcp() -> None:
    state = compiled(
        service("web", port(80, target=8080)),
        service("raw", port(81, "tcp", target=8080), vips=["10.96.0.2"], selector=WEB),
        pod("web-0", labels=WEB),
    )
    assert protocol(state, "destination/10.0.0.1:8080") == "tcp"
    assert protocol(state, "destination/10.96.0.1:80") == "http"
    assert protocol(state, "destination/10.96.0.2:81") == "tcp"


def test_services_that_disagree_about_grpc_only_leave_a_pods_port_http() -> None:
    """The sidecar treats both as HTTP, and would refuse TCP."""
    state = compiled(
        service("web", port(80, target=8080)),
        service("api", port(81, "grpc", target=8080), vips=["10.96.0.2"], selector=WEB),
        pod("web-0", labels=WEB),
    )
    assert protocol(state, "destination/10.0.0.1:8080") == "http"


def test_udp_is_left_out() -> None:
    state = compiled(service("dns", port(53, protocol="UDP"), port(53, "dns-tcp"), selector=WEB), pod("a", labels=WEB))
    assert protocol(state, "destination/10.96.0.1:53") == "tcp"
    assert compiled(service("dns", port(53, protocol="UDP"))) == {}


@pytest.mark.parametrize("first", ["old", "new"])
def test_an_address_belongs_to_the_younger_of_two_pods(first: str) -> None:
    both = [
        pod("old", labels=WEB, created="2024-01-01T00:00:00Z", meshed=False),
        pod("new", labels=WEB, created="2024-01-02T00:00:00Z"),
    ]
    state = compiled(service("web", port(80, target=8080)), *(both if first == "old" else reversed(both)))
    for key in ("cluster/default/web:80", "cluster/10.0.0.1:8080"):
        assert endpoints(state, key)["10.0.0.1:8080"].labels["dst_pod"] == "new"


@pytest.mark.parametrize(
    ("annotation", "method"), [(None, "random two"), ("least_conn", "least_conn"), ("fastest", "random two")]
)
def test_a_service_may_choose_its_balancing_method(annotation: str | None, method: str) -> None:
    chosen = {} if annotation is None else {"config.nsm.nginx.com/lb-method": annotation}
    state = compiled(service("web", port(80), annotations=chosen), settings=MeshSettings(lb_method="random two"))
    assert state["cluster/default/web:80"] == Cluster(lb_method=method, endpoints={})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "owner", "expected"),
    [
        ({"nsm.nginx.com/deployment": "web"}, None, {"dst_deployment": "web"}),
        ({"nsm.nginx.com/statefulset": "db"}, None, {"dst_statefulset": "db"}),
        ({"pod-template-hash": "5d4"}, ("ReplicaSet", "web-5d4"), {"dst_deployment": "web"}),
        ({}, ("ReplicaSet", "bare"), {"dst_replicaset": "bare"}),
        ({}, ("DaemonSet", "agent"), {"dst_daemonset": "agent"}),
        ({}, ("Custom", "thing"), {}),
    ],
)
def test_metrics_name_the_owner_of_the_pod(
    labels: dict[str, str], owner: tuple[str, str] | None, expected: dict[str, Any]
) -> None:
    made = pod("web-0", labels=labels)
    if owner is not None:
        reference = {"kind": owner[0], "name": owner[1], "controller": True}
        raw = msgspec.to_builtins(made)
        raw["metadata"]["ownerReferences"] = [reference]
        made = msgspec.convert(raw, type(made))
    state = compiled(made)
    found = endpoints(state, "cluster/10.0.0.1:8080")["10.0.0.1:8080"].labels
    assert found == {"dst_pod": "web-0", "dst_namespace": "default", **expected}


def test_ports_and_addresses_that_nobody_can_dial_are_left_out() -> None:
    # Sidecars refuse a state with an invalid port, so a single bad object would keep all of them from being updated.
    state = compiled(
        service("web", port(0), port(70000), port(80, target=70000), port(81, target=-1), vips=["fe80::1%eth0", "x"]),
        pod("web", labels=WEB, ips=["10.0.0.1", "fe80::2%eth0"], ports=[(0, ""), (65536, ""), (8080, "")]),
    )
    assert set(state) == {"destination/10.0.0.1:8080", "cluster/10.0.0.1:8080"}
