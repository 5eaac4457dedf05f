from __future__ import annotations

import json
from typing import Any

from nginx_mesh.api.manifest import LoadedObject, load
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.validate import validate_references

Raw = dict[str, Any]


def objects(*raws: Raw) -> list[LoadedObject]:
    manifest = load("\n".join(json.dumps({"apiVersion": "v1", **raw}) for raw in raws).encode(), "f")
    assert manifest.errors == []
    return manifest.objects


def pod(namespace: str = "default", labels: dict[str, str] | None = None, **spec: Any) -> Raw:
    metadata = {"name": "a", "namespace": namespace, "labels": labels or {}}
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "c"}], **spec}}


def named(kind: str, name: str, **metadata: Any) -> Raw:
    return {"kind": kind, "metadata": {"name": name, **metadata}}


def faults(*raws: Raw, there: tuple[ObjectKey, ...] = ()) -> list[str]:
    return [error.field for error in validate_references(objects(*raws), lambda key: key in there)]


def test_a_namespace_must_be_there() -> None:
    assert faults(pod("shop")) == ["metadata.namespace"]
    assert faults(pod("shop"), named("Namespace", "shop")) == []
    assert faults(pod("shop"), there=(ObjectKey("Namespace", "", "shop"),)) == []
    assert faults(pod("default")) == []


def test_a_service_account_must_be_there() -> None:
    web = pod(serviceAccountName="web")
    assert faults(web) == ["spec.serviceAccountName"]
    assert faults(web, named("ServiceAccount", "web")) == []
    assert faults(web, there=(ObjectKey("ServiceAccount", "default", "web"),)) == []
    assert faults(pod(serviceAccountName="default")) == []


def test_a_service_account_of_another_namespace_does_not_do() -> None:
    elsewhere = (named("Namespace", "shop"), named("ServiceAccount", "web", namespace="shop"))
    assert faults(pod(serviceAccountName="web"), *elsewhere) == ["spec.serviceAccountName"]


def test_templates_are_looked_at_as_well() -> None:
    template = {"spec": {"containers": [{"name": "c"}], "serviceAccountName": "web", "restartPolicy": "Never"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": template}}
    assert faults(job) == ["spec.template.spec.serviceAccountName"]


def test_config_maps_and_secrets_must_be_there_unless_optional() -> None:
    for optional in (False, True):
        container = {
            "name": "c",
            "envFrom": [{"configMapRef": {"name": "a", "optional": optional}}],
            "env": [
                {"name": "A", "value": "b"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": optional}}},
            ],
        }
        volumes = [
            {"name": "c", "configMap": {"name": "c", "optional": optional}},
            {"name": "s", "secret": {"secretName": "v", "optional": optional}},
            {"name": "e", "emptyDir": {}},
        ]
        expected = [
            "spec.volumes[0].configMap.name",
            "spec.volumes[1].secret.secretName",
            "spec.containers[0].envFrom[0].configMapRef.name",
            "spec.containers[0].env[1].valueFrom.secretKeyRef.name",
        ]
        assert faults(pod(containers=[container], volumes=volumes)) == ([] if optional else expected)


def test_pods_that_will_be_injected_have_each_port_once() -> None:
    ports = [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]
    containers = [{"name": "a", "ports": ports}, {"name": "b", "ports": ports[:1]}]
    enabled = {"injector.nsm.nginx.com/auto-inject": "enabled"}
    clash = ["spec.containers[1].ports[0].containerPort"]
    assert faults(pod(containers=containers)) == []
    assert faults(pod(labels=enabled, containers=containers)) == clash
    namespace = named("Namespace", "shop", labels=enabled)
    assert faults(namespace, pod("shop", containers=containers)) == clash
    existing = validate_references(
        objects(pod("shop", containers=containers)), lambda key: True, namespace_labels=lambda name: enabled
    )
    assert [error.field for error in existing] == clash
    assert "80/TCP" in existing[0].reason


def test_errors_name_file_and_object() -> None:
    (error,) = validate_references(objects(pod("shop")), lambda key: False)
    assert str(error) == 'f document 1: Pod shop/a: metadata.namespace: there is no Namespace "shop"'
