"""The workload that a pod belongs to."""

from __future__ import annotations

from .meta import ObjectMeta
from .workloadkinds import POD_OWNERS

TEMPLATE_HASH = "pod-template-hash"
"""The label by which Kubernetes tells apart the pods of a Deployment's templates."""

OWNER_KINDS = {kind.lower(): kind for kind in POD_OWNERS}
"""Kinds of pods' owners by their lower-case names, which the mesh's labels and metrics use."""


def controller(pod: ObjectMeta) -> tuple[str, str] | None:
    """(kind, name) of the controller in a pod's ownerReferences; for the ReplicaSet of a Deployment, the Deployment."""
    for reference in pod.owner_references:
        if not reference.controller:
            continue
        template_hash = pod.labels.get(TEMPLATE_HASH)
        if reference.kind == "ReplicaSet" and template_hash and reference.name.endswith(f"-{template_hash}"):
            return "Deployment", reference.name.removesuffix(f"-{template_hash}")
        return reference.kind, reference.name
    return None
