"""Templates of pods: one that no meshed pod can be made from is refused with its workload, not with every later pod."""

from __future__ import annotations

from collections.abc import Mapping

from nginx_mesh.api.errors import located
from nginx_mesh.api.resource import Resource
from nginx_mesh.inject import InjectSettings, inject_pod


def check_template(workload: Resource, namespace_labels: Mapping[str, str], injection: InjectSettings) -> None:
    """Check that injection takes the pods of a workload, whose namespace has these labels. Raises FieldError."""
    with located("spec.template"):
        namespace = workload["metadata"]["namespace"]
        inject_pod(workload["spec"]["template"], namespace_labels, injection, namespace=namespace)
