"""What the API of a local mesh does to its objects, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.status import StatusError
from nginx_mesh.control.settings import CONFIG_KEY
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.objects import Objects
from nginx_mesh.local.api.store import Store

from .stores import names

DEPLOYMENT = b"""
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: a, command: [sleep, "9"]}]}
"""
KEY = ObjectKey("Deployment", "default", "web")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.db", lambda: 0.0)


@pytest.fixture
def objects(store: Store) -> Objects:
    return Objects(store, EventLog(lambda: 0.0), MeshSettings(trust_domain="test.example"), lambda: 0.0)


def test_every_mesh_has_its_namespaces_and_configuration(objects: Objects, store: Store) -> None:
    assert names(store) == [
        "MeshConfig/nginx-mesh-config",
        "MeshConfigClass/nginx-mesh-config-class",
        "Namespace/default",
        "Namespace/kube-system",
        "Namespace/nginx-mesh",
        *["ServiceAccount/default"] * 3,
    ]
    objects.delete(CONFIG_KEY, None)
    again = Objects(store, EventLog(lambda: 0.0), MeshSettings(), lambda: 0.0)
    assert again.of_kind("MeshConfig", None) == []


def test_settings_follow_the_mesh_config(objects: Objects) -> None:
    objects.configure({"mtls_mode": "strict"})
    assert objects.settings() == MeshSettings(trust_domain="test.example", mtls_mode="strict")
    objects.delete(CONFIG_KEY, None)
    assert objects.settings() == MeshSettings(trust_domain="test.example")


@pytest.mark.parametrize("changes", [{"trust_domain": "other.example"}, {"mtls_mode": "maybe"}, {"svid_ttl": "long"}])
def test_settings_that_cannot_change_are_refused(objects: Objects, changes: dict[str, Any]) -> None:
    before = objects.settings()
    with pytest.raises(StatusError):
        objects.configure(changes)
    assert objects.settings() == before


async def test_a_patch_changes_what_it_names(objects: Objects) -> None:
    await objects.apply([("f", DEPLOYMENT)], "default")
    patched = objects.patch(KEY, {"spec": {"replicas": 3}})
    assert patched["spec"]["replicas"] == 3
    assert patched["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert patched["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"spec": {"replicas": "three"}}, "spec.replicas: must be an integer"),
        ({"spec": {"replicas": -1}}, "spec.replicas: -1 is less than 0"),
        ({"spec": {"selector": {"matchLabels": {"app": None}}}}, "spec.selector: is required"),
        ({"metadata": None}, "metadata: is required"),
        ({"metadata": {"name": "other"}}, "may not change"),
        ({"kind": "Nothing"}, "unknown kind"),
        ({"spec": None}, "spec: is required"),
    ],
)
async def test_a_patch_that_makes_no_sense_is_refused_and_changes_nothing(
    objects: Objects, patch: dict[str, Any], reason: str
) -> None:
    await objects.apply([("f", DEPLOYMENT)], "default")
    before = objects.get(KEY)
    with pytest.raises(StatusError, match=reason) as refused:
        objects.patch(KEY, patch)
    assert refused.value.reason == "Invalid"
    assert objects.get(KEY) == before


async def test_an_object_given_twice_is_refused_even_in_one_list(objects: Objects) -> None:
    item = b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}'
    twice = b'{"apiVersion": "v1", "kind": "List", "items": [' + item + b", " + item + b"]}"
    with pytest.raises(StatusError, match="the same object is in f document 1"):
        await objects.apply([("f", twice)], "default")
    with pytest.raises(StatusError, match=r"g document 1: .*the same object is in f document 1"):
        await objects.apply([("f", item), ("g", item)], "default")


async def test_all_faults_of_all_files_are_told_at_once(objects: Objects, store: Store) -> None:
    before = names(store)
    bad = DEPLOYMENT.replace(b"selector", b"select")
    with pytest.raises(StatusError) as refused:
        await objects.apply([("good", DEPLOYMENT), ("one", bad), ("two", b"kind: [")], "default")
    assert [detail.split()[0] for detail in refused.value.details] == ["one", "two"]
    assert names(store) == before


async def test_manifests_are_deleted_as_a_whole(objects: Objects, store: Store) -> None:
    await objects.apply([("f", DEPLOYMENT)], "default")
    other = DEPLOYMENT.replace(b"name: web", b"name: other")
    deleted = await objects.delete_all([("f", DEPLOYMENT), ("g", other)], "default", None)
    assert [(key.name, uid is None) for key, uid in deleted] == [("web", False), ("other", True)]
    assert "Deployment/web" not in names(store)


def test_namespaces_that_the_mesh_needs_stay(objects: Objects) -> None:
    with pytest.raises(StatusError) as refused:
        objects.delete(ObjectKey("Namespace", "", "nginx-mesh"), None)
    assert refused.value.reason == "Forbidden"


def rate_limit(name: str, source: str, rate: str = "1r/s") -> bytes:
    spec = f"{{destination: {{kind: Service, name: web}}, name: {name}, rate: {rate}, sources: [{{{source}}}]}}"
    head = f"apiVersion: specs.smi.nginx.com/v1alpha2\nkind: RateLimit\nmetadata: {{name: {name}}}"
    return f"{head}\nspec: {spec}\n".encode()


A, B = "kind: Deployment, name: a", "kind: Deployment, name: b"


async def test_two_rate_limits_for_the_same_source_are_refused_in_one_manifest_or_two(objects: Objects) -> None:
    with pytest.raises(StatusError, match=r"one.*spec.sources\[0\]: RateLimit default/two limits"):
        await objects.apply([("one", rate_limit("one", A)), ("two", rate_limit("two", A))], "default")
    await objects.apply([("one", rate_limit("one", A))], "default")
    with pytest.raises(StatusError, match=r"spec.sources\[0\]: RateLimit default/one limits"):
        await objects.apply([("two", rate_limit("two", A))], "default")
    await objects.apply([("two", rate_limit("two", B))], "default")
    with pytest.raises(StatusError, match="limits Deployment default/a"):
        objects.patch(
            ObjectKey("RateLimit", "default", "two"), {"spec": {"sources": [{"kind": "Deployment", "name": "a"}]}}
        )
    assert len(objects.of_kind("RateLimit", None)) == 2


async def test_rate_limits_can_swap_their_sources_in_one_manifest(objects: Objects) -> None:
    await objects.apply([("f", rate_limit("one", A)), ("g", rate_limit("two", B))], "default")
    results = await objects.apply([("f", rate_limit("one", B)), ("g", rate_limit("two", A))], "default")
    assert [result.outcome for result in results] == ["configured", "configured"]


async def test_what_a_policy_names_and_is_not_there_is_a_warning_once(objects: Objects) -> None:
    def warnings() -> list[tuple[str, str, int]]:
        return [(event["reason"], event["message"], event["count"]) for event in objects.of_kind("Event", None)]

    (applied,) = await objects.apply([("f", rate_limit("one", A))], "default")
    expected = [
        ("UnknownReference", "spec.destination: there is no Service default/web in the mesh", 1),
        ("UnknownReference", "spec.sources[0]: there is no Deployment default/a", 1),
    ]
    assert warnings() == expected
    about = "f document 1: RateLimit default/one: "
    assert applied.warnings == tuple(about + message for _, message, _ in expected)
    (applied,) = await objects.apply([("f", rate_limit("one", A))], "default")
    assert (applied.outcome, applied.warnings) == ("unchanged", ())
    await objects.apply([("f", rate_limit("one", A, rate="2r/s"))], "default")
    assert warnings() == expected
