"""How objects end, and what goes with them.

Deleting is one step for most kinds. A pod is only marked: it goes when its processes are gone. A namespace is marked
too, and goes when nothing is left in it. Objects follow their owners.
"""

from __future__ import annotations

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource, key_of
from nginx_mesh.api.times import rfc3339

from .store import Transaction

# Their absence would break everything else in the mesh.
PERMANENT_NAMESPACES = ("default", "kube-system", "nginx-mesh")


def delete(tx: Transaction, key: ObjectKey, now: float, grace_seconds: int | None = None) -> None:
    """Ask for an object to go. `grace_seconds` overrides a pod's terminationGracePeriodSeconds."""
    resource = tx.get(key)
    if resource is None:
        return
    if key.kind == "Pod":
        own = resource["spec"].get("terminationGracePeriodSeconds", 30)
        grace = own if grace_seconds is None else grace_seconds
        mark = {"deletionTimestamp": rfc3339(now), "deletionGracePeriodSeconds": grace}
        earlier = resource["metadata"]
        if "deletionTimestamp" not in earlier or grace < earlier["deletionGracePeriodSeconds"]:
            tx.put({**resource, "metadata": {**earlier, **mark}})
    elif key.kind == "Namespace":
        if "deletionTimestamp" not in resource["metadata"]:
            metadata = {**resource["metadata"], "deletionTimestamp": rfc3339(now)}
            tx.put({**resource, "metadata": metadata, "status": {"phase": "Terminating"}})
    else:
        tx.remove(key)


def settle(tx: Transaction, now: float) -> None:
    """Bring about what follows from this transaction so far.

    Objects whose owner is gone go, so does what is in namespaces that are going, and in the end these themselves.
    Every other namespace has a service account `default`.
    """
    namespaces = {item["metadata"]["name"]: item for item in tx.list("Namespace")}
    going = {name for name, item in namespaces.items() if "deletionTimestamp" in item["metadata"]}
    owners = {item["metadata"]["uid"] for item in tx.list()}
    for item in tx.list():
        metadata = item["metadata"]
        orphaned = any(owner["uid"] not in owners for owner in metadata.get("ownerReferences", []) if owner.get("uid"))
        if orphaned or metadata.get("namespace") in going:
            delete(tx, key_of(item), now)
    for name in going:
        if not any(tx.list(namespace=name)):
            tx.remove(ObjectKey("Namespace", "", name))
    for name in namespaces.keys() - going:
        account = _default_account(name)
        if tx.get(key_of(account)) is None:
            tx.put(account)


def _default_account(namespace: str) -> Resource:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
