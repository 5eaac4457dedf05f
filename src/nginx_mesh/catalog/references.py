"""The keys of objects that policies refer to."""

from __future__ import annotations

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import Fallback, ServiceReference, WorkloadReference
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import Subject


def referenced_key(policy: Object, reference: ServiceReference | Subject | WorkloadReference) -> ObjectKey:
    """The key of what a policy's field refers to: without a namespace of its own, an object of the policy's."""
    return ObjectKey(reference.kind, reference.namespace or policy.metadata.namespace, reference.name)


def fallback_key(fallback: Fallback) -> ObjectKey:
    """The key of the Service that is a CircuitBreaker's fallback."""
    return ObjectKey(Service.KIND, fallback.namespace, fallback.name)
