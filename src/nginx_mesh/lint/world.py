"""The mesh that manifests describe, as far as they do: the catalog as it will be once their pods run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from nginx_mesh.api.annotations import is_injected, wants_injection
from nginx_mesh.api.core import (
    DaemonSet,
    Deployment,
    Job,
    Namespace,
    Pod,
    PodTemplateSpec,
    ReplicaSet,
    ReplicationController,
    Service,
    StatefulSet,
)
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.loaded import LoadedObject
from nginx_mesh.api.meta import Object, ObjectKey, ObjectMeta, OwnerReference
from nginx_mesh.api.nsm import MeshConfig
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.catalog.records import Workload

T = TypeVar("T", bound=Object)
Workloads = Deployment | ReplicaSet | StatefulSet | DaemonSet | ReplicationController | Job


@dataclass(slots=True)
class World:
    """`objects` in the order given; `catalog` has them, each workload as one pod of its template.

    What is not given may be there all the same. So nothing is said of what policies select where no pods are given at
    all (`has_pods`), nor of Services where there are none (`has_services`).
    """

    objects: Sequence[Object]
    catalog: Catalog = field(default_factory=Catalog)
    settings: MeshSettings = field(default_factory=MeshSettings)
    has_pods: bool = False
    has_services: bool = False
    _pods: dict[ObjectKey, Pod] = field(default_factory=dict)
    _replicas: dict[ObjectKey, int] = field(default_factory=dict)
    _namespaces: dict[str, Namespace] = field(default_factory=dict)

    def of(self, kind: type[T]) -> Iterator[T]:
        """The objects of a kind."""
        return (obj for obj in self.objects if isinstance(obj, kind))

    def pods_behind(self, reference: ObjectKey) -> list[Workload]:
        """The pods of a Service or a workload, or the Pod itself."""
        topology = self.catalog.topology
        keys = sorted(topology.pods_behind(reference))
        return [pod for key in keys if (pod := topology.pod(key)) is not None]

    def pods_of_account(self, namespace: str, name: str) -> list[Workload]:
        """The pods that run as a ServiceAccount."""
        topology = self.catalog.topology
        keys = sorted(topology.pods_with_account(namespace, name))
        return [pod for key in keys if (pod := topology.pod(key)) is not None]

    def replicas(self, pods: Sequence[Workload]) -> int | None:
        """How many pods these will be; None where that is up to the nodes."""
        counts = [self._replicas.get(pod.key, 1) for pod in pods]
        return None if -1 in counts else sum(counts)

    def without_sidecar(self, pods: Sequence[Workload]) -> list[str]:
        """Those of the pods that will have no sidecar, as far as their labels and given namespaces tell."""
        return [pod.key.name for pod in pods if self._has_sidecar(pod) is False]

    def _has_sidecar(self, pod: Workload) -> bool | None:
        written = self._pods[pod.key]
        if is_injected(written.metadata.annotations):
            return True
        namespace = self._namespaces.get(pod.key.namespace)
        if namespace is None:
            return wants_injection(pod.labels, {}) or None
        return wants_injection(pod.labels, namespace.metadata.labels)

    def add(self, obj: Object) -> None:
        """Take an object in."""
        self.catalog.apply(Upsert(obj))
        if isinstance(obj, Pod):
            self._add_pod(obj, 1)
        elif isinstance(obj, Workloads):
            self._add_pod(_pod_of(obj), _count(obj))
        elif isinstance(obj, Service):
            self.has_services = True
        elif isinstance(obj, Namespace):
            self._namespaces[obj.metadata.name] = obj
        elif isinstance(obj, MeshConfig):
            try:
                self.settings = self.settings.with_config(obj)
            except FieldError:
                return

    def _add_pod(self, pod: Pod, replicas: int) -> None:
        self.has_pods = True
        self.catalog.apply(Upsert(pod))
        self._pods[pod.key], self._replicas[pod.key] = pod, replicas


def world_of(loaded: Sequence[LoadedObject]) -> World:
    """The mesh of these objects."""
    world = World([item.object for item in loaded])
    for obj in world.objects:
        world.add(obj)
    return world


def template_of(obj: Object) -> PodTemplateSpec | None:
    """What the pods of a workload will be."""
    return obj.spec.template if isinstance(obj, Workloads) else None


def _count(obj: Workloads) -> int:
    """How many pods it asks for, -1 for one per node."""
    if isinstance(obj, DaemonSet):
        return -1
    return obj.spec.parallelism if isinstance(obj, Job) else obj.spec.replicas


def _pod_of(obj: Workloads) -> Pod:
    template, key = obj.spec.template, obj.key
    owner = OwnerReference(kind=key.kind, name=key.name, controller=True)
    metadata = ObjectMeta(
        # No Pod is named so, hence none is shadowed.
        name=f"{key.kind}/{key.name}",
        namespace=key.namespace,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
        owner_references=[owner],
    )
    return Pod(metadata=metadata, spec=template.spec)
