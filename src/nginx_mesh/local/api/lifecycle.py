"""Deletion of objects, and of objects that depend on them.

Most kinds are removed at once. A pod gets a deletion timestamp, and is removed when its processes have ended. A
namespace gets one too, and is removed when no object is left in it. An object is deleted when its owner is gone.
"""

from __future__ import annotations

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource, key_of
from nginx_mesh.api.times import rfc3339

from .store import Transaction

# Nothing in the mesh would work without them.
PERMANENT_NAMESPACES = ("default", "kube-system", "nginx-mesh")


def delete(tx: Transaction, key: ObjectKey, now: float, grace_seconds: int | None = None) -> None:
    """Begin to delete an object. `grace_seconds` overrides a pod's terminationGracePeriodSeconds."""
    resource = tx.get(key)
    if resource is None:
        return
    if key.kind == "Pod":
        own = resource["spec"].get("terminationGracePeriodSeconds", 30)
        grace = own if grace_seconds is None else grace_seconds
        deletion = {"deletionTimestamp": rfc3339(now), "deletionGracePeriodSeconds": grace}
        metadata = resource["metadata"]
        if "deletionTimestamp" not in metadata or grace < metadata["deletionGracePeriodSeconds"]:
            tx.put({**resource, "metadata": {**metadata, **deletion}})
    elif key.kind == "Namespace":
        if "deletionTimestamp" not in resource["metadata"]:
            metadata = {**resource["metadata"], "deletionTimestamp": rfc3339(now)}
            tx.put({**resource, "metadata": metadata, "status": {"phase": "Terminating"}})
    else:
        tx.remove(key)


def settle(tx: Transaction, now: float) -> None:
    """Make the further changes that the changes of a transaction require.

    Deletes objects whose owner is gone and objects in namespaces that are being deleted, removes those namespaces once
    they are empty, and gives every other namespace its service account `default`.
    """
    namespaces = {item["metadata"]["name"]: item for item in tx.list("Namespace")}
    terminating = {name for name, item in namespaces.items() if "deletionTimestamp" in item["metadata"]}
    owners = {item["metadata"]["uid"] for item in tx.list()}
    for item in tx.list():
        metadata = item["metadata"]
        orphaned = any(owner["uid"] not in owners for owner in metadata.get("ownerReferences", []) if owner.get("uid"))
        if orphaned or metadata.get("namespace") in terminating:
            delete(tx, key_of(item), now)
    for name in terminating:
        if not any(tx.list(namespace=name)):
            tx.remove(ObjectKey("Namespace", "", name))
    for name in namespaces.keys() - terminating:
        account = _default_account(name)
        if tx.get(key_of(account)) is None:
            tx.put(account)


def _default_account(namespace: str) -> Resource:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
