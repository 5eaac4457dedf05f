"""The catalog reports everything that an event changes, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from nginx_mesh.api.cluster import Namespace
from nginx_mesh.api.meta import ObjectKey, ObjectMeta
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import EndpointSlice, Service
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


def test_readiness_changes_only_the_endpoint(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(pod("a", "10.0.0.1", ready=False)))
    assert changes == Changes(endpoints=frozenset({behind_web("10.0.0.1")}), objects=frozenset({A}))


def test_a_deleted_pod_changes_everything_that_depended_on_it(catalog: Catalog) -> None:
    changes = catalog.apply(Delete(A))
    assert changes == Changes(
        pods=frozenset({A}),
        addresses=frozenset({Address("10.0.0.1", 8080)}),
        endpoints=frozenset({behind_web("10.0.0.1")}),
        references=frozenset({A, WEB}),
        objects=frozenset({A}),
    )
    assert catalog.apply(Delete(A)) == Changes()


def test_a_new_address_of_a_pod_changes_the_old_address_too(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(pod("a", "10.0.0.9")))
    assert changes.addresses == {Address("10.0.0.1", 8080), Address("10.0.0.9", 8080)}
    assert changes.endpoints == {behind_web("10.0.0.1"), behind_web("10.0.0.9")}


def test_properties_of_a_pod_that_callers_use_change_its_addresses_and_endpoints(catalog: Catalog) -> None:
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


def test_an_update_without_a_difference_changes_nothing(catalog: Catalog) -> None:
    assert catalog.apply(Upsert(pod("a", "10.0.0.1", resourceVersion="7", annotations={"other": "x"}))) == Changes()
    assert catalog.apply(Upsert(service(annotations={"other": "x"}))) == Changes()


def test_an_annotation_of_a_service_changes_its_ports_and_no_pod(catalog: Catalog) -> None:
    changes = catalog.apply(Upsert(service(annotations={"config.nsm.nginx.com/lb-method": "random"})))
    assert changes == Changes(services=frozenset({ServicePort(WEB, 80)}), objects=frozenset({WEB}))


def test_a_new_port_of_a_service_changes_only_that_port(catalog: Catalog) -> None:
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


def test_an_address_that_two_services_claim_belongs_to_the_first_by_name(catalog: Catalog) -> None:
    catalog.apply(Upsert(service("alias")))
    at = Address("10.96.0.1", 80)
    for gone, holder in ((None, "alias"), ("alias", "web")):
        if gone is not None:
            assert at in catalog.apply(Delete(ObjectKey("Service", "default", gone))).addresses
        found = catalog.topology.service_at(at)
        assert found is not None
        assert found.key.name == holder


def test_a_pods_port_is_attributed_to_a_headless_service_first(catalog: Catalog) -> None:
    catalog.apply(Upsert(service("zz-headless", vip="None")))
    record = catalog.topology.pod(A)
    assert record is not None
    headless = ObjectKey("Service", "default", "zz-headless")
    assert catalog.topology.ports_of(record) == {8080: PortUse(("http",), headless, True, (ServicePort(headless, 80),))}


def test_kinds_that_the_mesh_does_not_act_on_change_nothing(catalog: Catalog) -> None:
    assert catalog.apply(Upsert(Namespace(metadata=ObjectMeta(name="x")))) == Changes()
    assert catalog.apply(Delete(ObjectKey("Unheard", "", "x"))) == Changes()


def test_initial_changes_name_everything_in_the_catalog(catalog: Catalog) -> None:
    changes = catalog.initial_changes()
    assert changes.pods == {A, ObjectKey("Pod", "default", "b")}
    assert changes.addresses == {Address("10.96.0.1", 80), Address("10.0.0.1", 8080), Address("10.0.0.2", 8080)}
    assert changes.services == {ServicePort(WEB, 80)}


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


def test_a_slice_changes_the_endpoints_that_it_adds_or_removes(catalog: Catalog) -> None:
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


def test_slices_are_used_only_for_services_that_name_the_identity_of_their_endpoints(catalog: Catalog) -> None:
    catalog.apply(Upsert(listing("10.1.0.1")))
    assert endpoints(catalog) == {"10.0.0.1", "10.0.0.2"}, "a selector wins"
    catalog.apply(Upsert(service(selector={})))
    assert catalog.topology.service(WEB) is None
    catalog.apply(Upsert(remote()))
    managed = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    catalog.apply(Upsert(listing("10.1.0.2", name="of-pods", **managed)))
    assert endpoints(catalog) == {"10.1.0.1"}


def test_indexes_are_empty_after_all_objects_are_deleted(catalog: Catalog) -> None:
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
