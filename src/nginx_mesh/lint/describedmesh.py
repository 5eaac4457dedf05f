"""The mesh that manifests describe: the catalog as it will be once their pods run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from nginx_mesh.api.annotations import is_injected, wants_injection
from nginx_mesh.api.cluster import Namespace
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.loaded import LoadedObject
from nginx_mesh.api.meta import Object, ObjectKey, ObjectMeta, OwnerReference
from nginx_mesh.api.nsm import MeshConfig
from nginx_mesh.api.pods import Pod, PodTemplateSpec
from nginx_mesh.api.portprotocol import PortProtocol
from nginx_mesh.api.services import Service
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.workloads import DaemonSet, Deployment, Job, ReplicaSet, ReplicationController, StatefulSet
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.catalog.records import PodRecord

T = TypeVar("T", bound=Object)
Workload = Deployment | ReplicaSet | StatefulSet | DaemonSet | ReplicationController | Job


@dataclass(slots=True)
class DescribedMesh:
    """The `objects` of manifests in their order, and a `catalog` with them and with one pod for each workload.

    The real mesh may contain more objects. So rules about the pods that policies select apply only when the manifests
    contain any pods (`has_pods`), and rules about Services only when they contain Services (`has_services`).
    """

    objects: Sequence[Object]
    catalog: Catalog = field(default_factory=Catalog)
    settings: MeshSettings = field(default_factory=MeshSettings)
    has_pods: bool = False
    has_services: bool = False
    _pods: dict[ObjectKey, Pod] = field(default_factory=dict)
    _replicas: dict[ObjectKey, int] = field(default_factory=dict)
    _namespaces: dict[str, Namespace] = field(default_factory=dict)

    def of_kind(self, kind: type[T]) -> Iterator[T]:
        """The objects of a kind."""
        return (obj for obj in self.objects if isinstance(obj, kind))

    def pods_behind(self, reference: ObjectKey) -> list[PodRecord]:
        """The pods of a Service or a workload, or the Pod itself."""
        return self._records(self.catalog.topology.pods_behind(reference))

    def pods_of_account(self, namespace: str, name: str) -> list[PodRecord]:
        """The pods that run as a ServiceAccount."""
        return self._records(self.catalog.topology.pods_with_account(namespace, name))

    def protocols(self, pods: Sequence[PodRecord], port: int | None = None) -> set[PortProtocol]:
        """The protocols of one declared port of the pods, or of all of their declared ports."""
        return {
            protocol
            for pod in pods
            for number, use in self.catalog.topology.ports_of(pod).items()
            if use.declared and port in (None, number)
            for protocol in use.protocols
        }

    def replicas(self, pods: Sequence[PodRecord]) -> int | None:
        """The number of replicas of these pods; None when it depends on the number of nodes."""
        counts = [self._replicas.get(pod.key, 1) for pod in pods]
        return None if -1 in counts else sum(counts)

    def without_sidecar(self, pods: Sequence[PodRecord]) -> list[str]:
        """The names of pods that will have no sidecar, by their labels and the namespaces in the manifests."""
        return [pod.key.name for pod in pods if self._has_sidecar(pod) is False]

    def _records(self, pods: Iterable[ObjectKey]) -> list[PodRecord]:
        return [record for key in sorted(pods) if (record := self.catalog.topology.pod(key)) is not None]

    def _has_sidecar(self, pod: PodRecord) -> bool | None:
        if is_injected(self._pods[pod.key].metadata.annotations):
            return True
        namespace = self._namespaces.get(pod.key.namespace)
        if namespace is None:
            return wants_injection(pod.labels, {}) or None
        return wants_injection(pod.labels, namespace.metadata.labels)

    def add(self, obj: Object) -> None:
        """Add an object."""
        self.catalog.apply(Upsert(obj))
        if isinstance(obj, Pod):
            self._add_pod(obj, 1)
        elif isinstance(obj, Workload):
            self._add_pod(_pod_of(obj), _replica_count(obj))
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


def mesh_of(loaded: Sequence[LoadedObject]) -> DescribedMesh:
    """The mesh that these objects describe."""
    mesh = DescribedMesh([item.object for item in loaded])
    for obj in mesh.objects:
        mesh.add(obj)
    return mesh


def template_of(obj: Object) -> PodTemplateSpec | None:
    """The pod template of a workload; None for other objects."""
    return obj.spec.template if isinstance(obj, Workload) else None


def _replica_count(obj: Workload) -> int:
    """How many pods a workload has, -1 for one per node."""
    if isinstance(obj, DaemonSet):
        return -1
    return obj.spec.parallelism if isinstance(obj, Job) else obj.spec.replicas


def _pod_of(obj: Workload) -> Pod:
    template, key = obj.spec.template, obj.key
    owner = OwnerReference(kind=key.kind, name=key.name, controller=True)
    metadata = ObjectMeta(
        # "/" is not allowed in names, so this is never the name of a Pod in the manifests.
        name=f"{key.kind}/{key.name}",
        namespace=key.namespace,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
        owner_references=[owner],
    )
    return Pod(metadata=metadata, spec=template.spec)
