from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.api.errors import FieldError
from nginx_mesh.inject import InjectSettings, inject_document

Raw = dict[str, Any]
SETTINGS = InjectSettings()


def template() -> Raw:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}]}}


def workload(kind: str, **spec: Any) -> Raw:
    version = {"ReplicationController": "v1", "Job": "batch/v1"}.get(kind, "apps/v1")
    selector = {} if kind in ("ReplicationController", "Job") else {"selector": {"matchLabels": {"app": "web"}}}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {**selector, "template": template(), **spec},
    }


@pytest.mark.parametrize(
    "kind", ["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job"]
)
def test_pods_of_workloads_are_injected_and_labelled(kind: str) -> None:
    result = inject_document(workload(kind), SETTINGS)
    made = result.document["spec"]["template"]
    assert [one["name"] for one in made["spec"]["containers"]] == ["app", "nginx-mesh-sidecar"]
    assert made["metadata"]["labels"][f"nsm.nginx.com/{kind.lower()}"] == "web"
    assert made["metadata"]["labels"]["app"] == "web"
    assert [outcome.object for outcome in result.outcomes if outcome.injected] == [f"{kind} shop/web"]


def test_pods_of_a_cron_job_are_injected_and_not_labelled_as_its_own() -> None:
    job: Raw = {"metadata": {"labels": {"of": "job"}}, "spec": {"template": template(), "backoffLimit": 2}}
    document = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly", "namespace": "shop"},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": job},
    }
    result = inject_document(document, SETTINGS)
    made = result.document["spec"]["jobTemplate"]["spec"].pop("template")
    assert [one["name"] for one in made["spec"]["containers"]] == ["app", "nginx-mesh-sidecar"]
    assert not any(key.startswith("nsm.nginx.com/") for key in made["metadata"]["labels"])
    assert [outcome.object for outcome in result.outcomes if outcome.injected] == ["CronJob shop/nightly"]
    del job["spec"]["template"]
    assert result.document == document


def test_what_is_wrong_in_a_cron_job_is_named_by_its_path() -> None:
    spec = {"containers": [{"name": "nginx-mesh-sidecar"}]}
    job = {"spec": {"template": {"spec": spec}}}
    document = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "a"}, "spec": {"jobTemplate": job}}
    with pytest.raises(FieldError, match=r"^spec\.jobTemplate\.spec\.template\.spec\.containers"):
        inject_document(document, SETTINGS)


def test_a_pod_is_injected() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}}
    assert len(inject_document(pod, SETTINGS).document["spec"]["containers"]) == 2


@pytest.mark.parametrize(
    "document",
    [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": "not ours to judge"}},
        {"anything": "else"},
    ],
)
def test_other_documents_pass_unchanged(document: Raw) -> None:
    assert inject_document(document, SETTINGS) == (document, [])


def test_lists_are_kept() -> None:
    service = {"apiVersion": "v1", "kind": "Service"}
    document = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [service, workload("Deployment")]}
    result = inject_document(document, SETTINGS)
    assert result.document["kind"] == "List"
    assert result.document["metadata"] == {}
    assert result.document["items"][0] == service
    assert len(result.document["items"][1]["spec"]["template"]["spec"]["containers"]) == 2


def test_items_of_typed_lists_need_not_say_what_they_are() -> None:
    item = workload("Deployment")
    del item["apiVersion"], item["kind"]
    result = inject_document({"apiVersion": "apps/v1", "kind": "DeploymentList", "items": [item]}, SETTINGS)
    (made,) = result.document["items"]
    assert made.keys() == item.keys()
    assert len(made["spec"]["template"]["spec"]["containers"]) == 2


def test_injecting_twice_is_injecting_once() -> None:
    once = inject_document(workload("Deployment"), SETTINGS).document
    assert inject_document(once, SETTINGS).document == once


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("text", ""),
        ([], ""),
        (
            workload("Deployment", template={"spec": {"containers": [{"name": 5}]}}),
            "spec.template.spec.containers[0].name",
        ),
        ({**workload("Deployment"), "apiVersion": "extensions/v1beta1"}, "apiVersion"),
        (
            workload("Deployment", template={"spec": {"containers": [{"name": "nginx-mesh-init"}]}}),
            "spec.template.spec.containers[0].name",
        ),
        ({"apiVersion": "v1", "kind": "List", "items": [{}, 5]}, "items[1]"),
    ],
)
def test_what_is_wrong_is_named_from_the_documents_root(document: Any, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        inject_document(document, SETTINGS)
    assert caught.value.field == field


def test_why_a_pod_is_not_injected_is_told() -> None:
    raw = workload("DaemonSet", template={**template(), "spec": {"hostNetwork": True, "containers": [{"name": "a"}]}})
    raw["spec"]["template"]["spec"]["containers"] = [{"name": "a"}]
    result = inject_document(raw, SETTINGS)
    assert result.document == raw
    assert [(outcome.injected, "host's network" in outcome.reason) for outcome in result.outcomes] == [(False, True)]
