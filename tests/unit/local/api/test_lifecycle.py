"""Deleting objects, and what goes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.local.api import lifecycle
from nginx_mesh.local.api.store import Store, Transaction

from .stores import names

NOW = 1_700_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.db", lambda: NOW)


def put(tx: Transaction, kind: str, name: str, namespace: str = "", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    tx.put({"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest})
    found = tx.get(ObjectKey(kind, namespace, name))
    assert found is not None
    return found


def test_every_namespace_has_a_default_account_even_if_someone_deletes_it(store: Store) -> None:
    with store.transaction() as tx:
        put(tx, "Namespace", "shop")
        lifecycle.settle(tx, NOW)
    assert names(store) == ["Namespace/shop", "ServiceAccount/default"]
    with store.transaction() as tx:
        lifecycle.delete(tx, ObjectKey("ServiceAccount", "shop", "default"), NOW)
        lifecycle.settle(tx, NOW)
    assert names(store) == ["Namespace/shop", "ServiceAccount/default"]


def test_a_pod_is_marked_first_and_a_shorter_grace_period_wins(store: Store) -> None:
    key = ObjectKey("Pod", "shop", "web")
    with store.transaction() as tx:
        put(tx, "Pod", "web", "shop", spec={"terminationGracePeriodSeconds": 5})
    for grace, kept in ((None, 5), (9, 5), (0, 0)):
        with store.transaction() as tx:
            lifecycle.delete(tx, key, NOW, grace)
        pod = store.get(key)
        assert pod is not None
        assert pod["metadata"]["deletionGracePeriodSeconds"] == kept
        assert pod["metadata"]["deletionTimestamp"] == "2023-11-14T22:13:20Z"


def test_objects_follow_their_owner(store: Store) -> None:
    with store.transaction() as tx:
        put(tx, "Namespace", "shop")
        owner = put(tx, "Deployment", "web", "shop", spec={})
        reference = {"kind": "Deployment", "name": "web", "uid": owner["metadata"]["uid"], "controller": True}
        put(tx, "Pod", "web-1", "shop", spec={}, metadata={"ownerReferences": [reference]})
        put(tx, "Pod", "other", "shop", spec={})
        lifecycle.settle(tx, NOW)
    with store.transaction() as tx:
        lifecycle.delete(tx, owner_key := ObjectKey("Deployment", "shop", "web"), NOW)
        lifecycle.settle(tx, NOW)
    assert store.get(owner_key) is None
    marked = {pod["metadata"]["name"]: "deletionTimestamp" in pod["metadata"] for pod in store.list("Pod")}
    assert marked == {"web-1": True, "other": False}


def test_a_namespace_goes_when_its_last_pod_is_gone(store: Store) -> None:
    with store.transaction() as tx:
        put(tx, "Namespace", "shop")
        put(tx, "Namespace", "other")
        put(tx, "ConfigMap", "c", "shop")
        put(tx, "ConfigMap", "c", "other")
        put(tx, "Pod", "web", "shop", spec={})
        lifecycle.settle(tx, NOW)
    with store.transaction() as tx:
        lifecycle.delete(tx, ObjectKey("Namespace", "", "shop"), NOW)
        lifecycle.settle(tx, NOW)
    going = store.get(ObjectKey("Namespace", "", "shop"))
    assert going is not None
    assert going["status"] == {"phase": "Terminating"}
    assert [item["kind"] for item in store.list(namespace="shop")] == ["Pod"]
    with store.transaction() as tx:
        tx.remove(ObjectKey("Pod", "shop", "web"))
        lifecycle.settle(tx, NOW)
    assert names(store) == ["ConfigMap/c", "Namespace/other", "ServiceAccount/default"]
