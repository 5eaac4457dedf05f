"""What objects become before they are stored."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.inject import InjectSettings
from nginx_mesh.local.api.admission import RESTARTED_ANNOTATION, Admission
from nginx_mesh.local.api.store import Store, Transaction
from nginx_mesh.local.net.networks import DEFAULT, SERVICE_NETWORKS

Put = Callable[[Resource], Resource]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store.db", lambda: 0.0)
    with store.transaction() as tx:
        tx.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    return store


def admission(tx: Transaction) -> Admission:
    return Admission(tx, InjectSettings(), random.Random(1))


@pytest.fixture
def put(store: Store) -> Put:
    def put(resource: Resource) -> Resource:
        with store.transaction() as tx:
            tx.put(admission(tx).admit(resource))
        metadata = resource["metadata"]
        stored = store.get(ObjectKey(resource["kind"], metadata.get("namespace", ""), metadata["name"]))
        assert stored is not None
        return stored

    return put


def service(name: str = "web", **spec: Any) -> Resource:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec},
    }


def pod(name: str = "web", command: str = "a", **spec: Any) -> Resource:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "a", "command": [command]}], **spec},
    }


def deployment(command: str = "a", **spec: Any) -> Resource:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "command": [command]}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def test_a_service_has_one_address_family_unless_it_asks_for_two(put: Put) -> None:
    single = put(service())["spec"]
    assert (single["ipFamilies"], len(single["clusterIPs"])) == (["IPv4"], 1)
    assert put(service("v6", ipFamilies=["IPv6"]))["spec"]["clusterIP"].startswith("fd00:")
    faults: list[tuple[dict[str, Any], str]] = [
        ({"ipFamilyPolicy": "Both"}, "none of"),
        ({"ipFamilies": ["IPv4", "IPv4"]}, "once each"),
        ({"ipFamilies": ["IPX"]}, "IPv4 or IPv6"),
    ]
    for fields, reason in faults:
        with pytest.raises(FieldError, match=reason):
            put(service("bad", **fields))


def test_a_dual_stack_service_gets_an_address_of_each_family_and_keeps_them(put: Put) -> None:
    first = put(service(ipFamilyPolicy="PreferDualStack"))["spec"]
    assert len(first["clusterIPs"]) == len(first["ipFamilies"])
    assert first["clusterIP"] == first["clusterIPs"][0]
    for address, network in zip(first["clusterIPs"], SERVICE_NETWORKS, strict=False):
        assert ip_address(address) in network
    changed = put(service(ports=[{"port": 81}]))["spec"]
    assert changed["clusterIPs"] == first["clusterIPs"]
    assert changed["ports"] == [{"port": 81}]
    assert put(service("other"))["spec"]["clusterIP"] != first["clusterIP"]


def test_a_given_address_is_honoured_or_refused_by_field(put: Put) -> None:
    assert put(service(clusterIP="10.96.7.7"))["spec"]["clusterIPs"][0] == "10.96.7.7"
    assert put(service("v6", clusterIP="fd00:10:96::7"))["spec"]["clusterIP"] == "fd00:10:96::7"
    assert put(service("headless", clusterIP="None"))["spec"]["clusterIPs"] == ["None"]
    for address, reason in [
        ("10.96.7.7", "already allocated"),
        ("10.1.1.1", "not in the range"),
        ("ten", "not an IP address"),
    ]:
        with pytest.raises(FieldError, match=reason) as refused:
            put(service("clash", clusterIP=address))
        assert refused.value.field == "spec.clusterIP"
    with pytest.raises(FieldError, match="may not change"):
        put(service(clusterIP="10.96.7.8"))


def test_a_refused_service_leaves_its_address_to_others(store: Store, put: Put) -> None:
    with pytest.raises(RuntimeError), store.transaction() as tx:
        tx.put(admission(tx).admit(service(clusterIP="10.96.7.7")))
        raise RuntimeError
    assert put(service("next", clusterIP="10.96.7.7"))["spec"]["clusterIP"] == "10.96.7.7"


def test_secret_text_becomes_data(put: Put) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "default"},
        "data": {"a": "YQ=="},
        "stringData": {"b": "hällo"},
    }
    stored = put(secret)
    assert stored["data"] == {"a": "YQ==", "b": "aMOkbGxv"}
    assert "stringData" not in stored
    with pytest.raises(FieldError, match="not base64") as refused:
        put({**secret, "data": {"a": "?"}})
    assert refused.value.field == "data.a"


def test_a_pod_is_addressed_when_it_is_made(put: Put) -> None:
    stored = put(pod())
    assert [container["name"] for container in stored["spec"]["containers"]] == ["a"]
    assert stored["spec"]["serviceAccountName"] == "default"
    assert stored["status"]["phase"] == "Pending"
    for entry, network in zip(stored["status"]["podIPs"], DEFAULT.all, strict=False):
        assert ip_address(entry["ip"]) in network
    assert put(pod("other"))["status"]["podIP"] != stored["status"]["podIP"]


def test_pods_of_a_labelled_namespace_are_injected_and_their_workloads_stay_as_written(store: Store, put: Put) -> None:
    labels = {"injector.nsm.nginx.com/auto-inject": "enabled"}
    put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": labels}})
    assert [container["name"] for container in put(pod())["spec"]["containers"]] == ["a", "nginx-mesh-sidecar"]
    assert put(deployment())["spec"] == deployment()["spec"]
    with store.transaction() as tx:
        assert tx.put(admission(tx).admit(pod())) == "unchanged"
    clash = deployment()
    clash["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 8900}]
    with pytest.raises(FieldError, match="a port of the sidecar") as refused:
        put(clash)
    assert refused.value.field == "spec.template.spec.containers[0].ports[0].containerPort"


def test_the_same_pod_again_changes_nothing_and_another_is_refused(store: Store, put: Put) -> None:
    put(pod())
    with store.transaction() as tx:
        assert tx.put(admission(tx).admit(pod())) == "unchanged"
    with pytest.raises(FieldError, match="cannot be changed"):
        put(pod(command="b"))


def test_the_address_of_a_gone_pod_is_not_used_at_once(store: Store, put: Put) -> None:
    first = put(pod("a"))["status"]["podIP"]
    with store.transaction() as tx:
        tx.remove(ObjectKey("Pod", "default", "a"))
    assert put(pod("b"))["status"]["podIP"] != first


def test_what_a_pod_refers_to_must_be_there(put: Put) -> None:
    with pytest.raises(FieldError, match='no ServiceAccount "api"') as refused:
        put(pod(serviceAccountName="api"))
    assert refused.value.field == "spec.serviceAccountName"
    elsewhere = {**pod(), "metadata": {"name": "web", "namespace": "none"}}
    with pytest.raises(FieldError, match='no namespace "none"'):
        put(elsewhere)


def test_what_get_printed_can_be_applied_again(store: Store, put: Put) -> None:
    printed = put(service())
    printed = {**printed, "metadata": {**printed["metadata"], "deletionTimestamp": "1970-01-01T00:00:00Z"}}
    with store.transaction() as tx:
        assert tx.put(admission(tx).admit({**printed, "status": {"loadBalancer": {}}})) == "unchanged"


@pytest.mark.parametrize(
    ("strategy", "field"),
    [
        ({"type": "Blue"}, "spec.strategy.type"),
        ({"rollingUpdate": {"maxSurge": "many"}}, "spec.strategy.rollingUpdate.maxSurge"),
        ({"rollingUpdate": {"maxUnavailable": -1}}, "spec.strategy.rollingUpdate.maxUnavailable"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused_by_field(put: Put, strategy: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as refused:
        put(deployment(strategy=strategy))
    assert refused.value.field == field


def test_a_selector_may_not_change(put: Put) -> None:
    put(deployment())
    with pytest.raises(FieldError, match="may not change") as refused:
        put(deployment(selector={"matchLabels": {"app": "other"}}))
    assert refused.value.field == "spec.selector"


def test_applying_again_keeps_the_status_and_restarts_nothing(store: Store, put: Put) -> None:
    restarted = copy.deepcopy(put(deployment()))
    restarted["spec"]["template"]["metadata"]["annotations"] = {RESTARTED_ANNOTATION: "now"}
    with store.transaction() as tx:
        tx.put({**restarted, "status": {"replicas": 1}})
    with store.transaction() as tx:
        assert tx.put(admission(tx).admit(deployment())) == "unchanged"
    with store.transaction() as tx:
        assert tx.put(admission(tx).admit(deployment("b"))) == "configured"
    stored = store.get(ObjectKey("Deployment", "default", "web"))
    assert stored is not None
    assert stored["status"] == {"replicas": 1}
    assert stored["spec"]["template"]["metadata"]["annotations"] == {RESTARTED_ANNOTATION: "now"}


def test_nothing_is_made_in_a_namespace_that_goes(store: Store, put: Put) -> None:
    with store.transaction() as tx:
        tx.put({"kind": "Namespace", "metadata": {"name": "default", "deletionTimestamp": "1970-01-01T00:00:00Z"}})
    with pytest.raises(FieldError, match="being deleted"):
        put(service())
