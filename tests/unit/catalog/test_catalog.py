"""The catalog says what an event touched: all of it, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from nginx_mesh.api.core import EndpointSlice, Namespace, Pod, Service
from nginx_mesh.api.meta import ObjectKey, ObjectMeta
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Address, Changes, Delete, EndpointAddress, ServicePort, Upsert
from nginx_mesh.catalog.records import PortUse

A = ObjectKey("Pod", "default", "a")
WEB = ObjectKey("Service", "default", "web")


def pod(name: str, ip: str, *, ready: bool = True, sidecar: bool = False, **metadata: Any) -> Pod:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "web", "tier": "x"}, **metadata},
            "spec": {
                "containers": [
                    {"name": "app", "ports": [{"containerPort": 8080}]},
                    *([{"name": "nginx-mesh-sidecar"}] if sidecar else []),
                ]
            },
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
        },
        Pod,
    )


def service(
    name: str = "web",
    *,
    ports: Sequence[int] = (80,),
    selector: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    vip: str = "10.96.0.1",
) -> Service:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", "annotations": dict(annotations or {})},
            "spec": {
                "clusterIP": vip,
                "selector": {"app": "web"} if selector is None else dict(selector),
                "ports": [{"port": number, "targetPort": 8080} for number in ports],
            },
        },
        Service,
    )


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog()
    for obj in (service(), pod("a", "10.0.0.1"), pod("b", "10.0.0.2")):
        catalog.apply(Upsert(obj))
    return catalog


def behind_web(ip: str, port: int = 80) -> EndpointAddress:
    return EndpointAddress(WEB, port, ip, 8080)


def test_readiness_touches_the_endpoint_alone(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(pod("a", "10.0.0.1", ready=False)))
    assert changes == Changes(endpoints=frozenset({behind_web("10.0.0.1")}), objects=frozenset({A}))


def test_a_pod_that_goes_touches_all_it_was(catalog: Catalog) -> None:
    changes = catalog.apply(Delete(A))
    assert changes == Changes(
        pods=frozenset({A}),
        addresses=frozenset({Address("10.0.0.1", 8080)}),
        endpoints=frozenset({behind_web("10.0.0.1")}),
        references=frozenset({A, WEB}),
        objects=frozenset({A}),
    )
    assert catalog.apply(Delete(A)) == Changes()


def test_a_new_address_touches_the_old_one_too(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(pod("a", "10.0.0.9")))
    assert changes.addresses == {Address("10.0.0.1", 8080), Address("10.0.0.9", 8080)}
    assert changes.endpoints == {behind_web("10.0.0.1"), behind_web("10.0.0.9")}


def test_what_peers_see_of_a_pod_touches_its_addresses_and_endpoints(catalog: Catalog) -> None:
    injected = {"injector.nsm.nginx.com/status": "injected"}
    changes = catalog.apply(Upsert(pod("a", "10.0.0.1", sidecar=True, annotations=injected)))
    assert changes.addresses == {Address("10.0.0.1", 8080)}
    assert changes.endpoints == {behind_web("10.0.0.1")}
    assert changes.pods == {A}


def test_a_pod_that_only_claims_to_be_injected_is_not_meshed(catalog: Catalog) -> None:
    catalog.apply(Upsert(pod("a", "10.0.0.1", annotations={"injector.nsm.nginx.com/status": "injected"})))
    workload = catalog.topology.pod(A)
    assert workload is not None
    assert not workload.meshed


def test_an_event_that_says_nothing_new_touches_nothing(catalog: Catalog) -> None:
    assert catalog.apply(Upsert(pod("a", "10.0.0.1", resourceVersion="7", annotations={"other": "x"}))) == Changes()
    assert catalog.apply(Upsert(service(annotations={"other": "x"}))) == Changes()


def test_an_annotation_of_a_service_touches_its_ports_and_no_pod(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(service(annotations={"config.nsm.nginx.com/lb-method": "random"})))
    assert changes == Changes(services=frozenset({ServicePort(WEB, 80)}), objects=frozenset({WEB}))


def test_another_port_of_a_service_touches_that_port(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(service(ports=(80, 81))))
    assert changes.services == {ServicePort(WEB, 81)}
    assert Address("10.96.0.1", 81) in changes.addresses
    assert Address("10.96.0.1", 80) not in changes.addresses
    assert changes.endpoints == {behind_web("10.0.0.1", 81), behind_web("10.0.0.2", 81)}


def test_a_selector_moves_pods_between_services(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(service(selector={"app": "web", "tier": "y"})))
    assert changes.endpoints == {behind_web("10.0.0.1"), behind_web("10.0.0.2")}
    record = catalog.topology.service(WEB)
    assert record is not None
    assert catalog.topology.endpoints_of(record, 80) == set()
    assert catalog.apply(Upsert(pod("a", "10.0.0.1", labels={"app": "web", "tier": "y"}))).endpoints == {
        behind_web("10.0.0.1")
    }


def test_a_service_that_loses_its_selector_leaves_the_mesh(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(service(selector={})))
    assert catalog.topology.service(WEB) is None
    assert Address("10.96.0.1", 80) in changes.addresses
    assert changes.services == {ServicePort(WEB, 80)}


def test_two_services_may_claim_one_address_and_the_first_by_name_has_it(catalog: Catalog) -> None:
    catalog.apply(Upsert(service("alias")))
    at = Address("10.96.0.1", 80)
    for gone, holder in ((None, "alias"), ("alias", "web")):
        if gone is not None:
            assert at in catalog.apply(Delete(ObjectKey("Service", "default", gone))).addresses
        found = catalog.topology.service_at(at)
        assert found is not None
        assert found.key.name == holder


def test_a_headless_service_is_the_one_that_a_pods_port_is_known_by(catalog: Catalog) -> None:
    catalog.apply(Upsert(service("zz-headless", vip="None")))
    record = catalog.topology.pod(A)
    assert record is not None
    headless = ObjectKey("Service", "default", "zz-headless")
    assert catalog.topology.ports_of(record) == {8080: PortUse(("http",), headless, True, (ServicePort(headless, 80),))}


def test_kinds_that_the_mesh_does_not_act_on_touch_nothing(catalog: Catalog) -> None:
    assert catalog.apply(Upsert(Namespace(metadata=ObjectMeta(name="x")))) == Changes()
    assert catalog.apply(Delete(ObjectKey("Unheard", "", "x"))) == Changes()


def test_everything_is_what_a_follower_from_the_start_was_told_of(catalog: Catalog) -> None:
    everything = catalog.initial_changes()
    assert everything.pods == {A, ObjectKey("Pod", "default", "b")}
    assert everything.addresses == {Address("10.96.0.1", 80), Address("10.0.0.1", 8080), Address("10.0.0.2", 8080)}
    assert everything.services == {ServicePort(WEB, 80)}


PEER = {"config.nsm.nginx.com/peer-spiffe-id": "spiffe://other.example/x"}


def remote(**annotations: str) -> Service:
    return service(selector={}, annotations={**PEER, **annotations})


def listing(*addresses: str, name: str = "web-1", **labels: str) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web", **labels},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in addresses],
            "ports": [{"port": 9000}],
        },
        EndpointSlice,
    )


def behind(ip: str) -> Address:
    return Address(ip, 9000)


def at_web(*ips: str) -> frozenset[EndpointAddress]:
    return frozenset(EndpointAddress(WEB, 80, ip, 9000) for ip in ips)


def endpoints(catalog: Catalog) -> set[str]:
    record = catalog.topology.service(WEB)
    return set() if record is None else {endpoint.ip for endpoint in catalog.topology.endpoints_of(record, 80)}


def test_a_slice_touches_the_endpoints_that_came_or_went_with_it(catalog: Catalog) -> None:
    catalog.apply(Upsert(remote()))
    catalog.apply(Upsert(listing("10.1.0.1", "10.1.0.2")))
    changes = catalog.apply(Upsert(listing("10.1.0.2", "10.1.0.3")))
    assert changes == Changes(
        endpoints=at_web("10.1.0.1", "10.1.0.3"), addresses=frozenset({behind("10.1.0.1"), behind("10.1.0.3")})
    )
    assert catalog.apply(Upsert(listing("10.1.0.2", "10.1.0.3"))) == Changes()
    assert catalog.apply(Upsert(remote(**{"config.nsm.nginx.com/peer-spiffe-id": "spiffe://x/y"}))) == Changes(
        endpoints=at_web("10.1.0.2", "10.1.0.3"),
        addresses=frozenset({behind("10.1.0.2"), behind("10.1.0.3")}),
        services=frozenset({ServicePort(WEB, 80)}),
        objects=frozenset({WEB}),
    )


def test_an_endpoint_that_moves_from_slice_to_slice_stays(catalog: Catalog) -> None:
    catalog.apply(Upsert(remote()))
    catalog.apply(Upsert(listing("10.1.0.1")))
    assert catalog.apply(Upsert(listing("10.1.0.1", name="web-2"))) == Changes()
    assert catalog.apply(Delete(listing().key)) == Changes()
    assert endpoints(catalog) == {"10.1.0.1"}
    assert catalog.apply(Delete(listing(name="web-2").key)).endpoints == at_web("10.1.0.1")


def test_a_slice_may_come_before_its_service(catalog: Catalog) -> None:
    catalog.apply(Delete(WEB))
    assert catalog.apply(Upsert(listing("10.1.0.1"))) == Changes()
    assert catalog.apply(Upsert(remote())).endpoints == at_web("10.1.0.1")
    assert endpoints(catalog) == {"10.1.0.1"}


def test_slices_count_only_for_services_that_name_who_is_behind_them(catalog: Catalog) -> None:
    catalog.apply(Upsert(listing("10.1.0.1")))
    assert endpoints(catalog) == {"10.0.0.1", "10.0.0.2"}, "a selector wins"
    catalog.apply(Upsert(service(selector={})))
    assert catalog.topology.service(WEB) is None
    catalog.apply(Upsert(remote()))
    managed = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    catalog.apply(Upsert(listing("10.1.0.2", name="of-pods", **managed)))
    assert endpoints(catalog) == {"10.1.0.1"}


def test_no_trace_is_left_of_what_has_gone(catalog: Catalog) -> None:
    for name in ("a", "b"):
        catalog.apply(Delete(ObjectKey("Pod", "default", name)))
    catalog.apply(Delete(WEB))
    catalog.apply(Upsert(remote()))
    catalog.apply(Upsert(listing("10.1.0.1", "10.1.0.2")))
    assert catalog.initial_changes().addresses == {Address("10.96.0.1", 80), behind("10.1.0.1"), behind("10.1.0.2")}
    catalog.apply(Delete(WEB))
    catalog.apply(Delete(listing().key))
    indices = {**vars(catalog.topology), **vars(catalog.topology.remote_endpoints)}
    del indices["remote_endpoints"]
    assert {len(index) for index in indices.values()} == {0}, indices
    assert catalog.initial_changes() == Changes()
