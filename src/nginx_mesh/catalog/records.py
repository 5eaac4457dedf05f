"""What the mesh keeps of a Pod, of a Service and of an EndpointSlice.

A record holds only what the mesh acts on, so that two objects with equal records are the same to it: most updates
of a Pod's status end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nginx_mesh.api.annotations import OWNER_PREFIX, PEER_SPIFFE_ID, SIDECAR_CONTAINER, is_injected
from nginx_mesh.api.core import ContainerPort, EndpointSlice, Pod, Service
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.names import port_number
from nginx_mesh.api.portprotocol import PortProtocol, protocol_of

from .addresses import canonical, family

_OWNER_KINDS = ("deployment", "daemonset", "statefulset", "replicaset", "replicationcontroller", "job")
_OWNER_KIND_NAMES = {
    "deployment": "Deployment",
    "daemonset": "DaemonSet",
    "statefulset": "StatefulSet",
    "replicaset": "ReplicaSet",
    "replicationcontroller": "ReplicationController",
    "job": "Job",
}
_FAMILIES = {"IPv4": 4, "IPv6": 6}
_TEMPLATE_HASH = "pod-template-hash"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_OF_PODS = "endpointslice-controller.k8s.io"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Pod. `addresses` is empty while it has none and once it has finished.

    `ports` are the declared TCP ports, number to name; `owner` is (lower-case kind, name) of what made the pod, a
    Deployment rather than its ReplicaSet. `serving` is what Kubernetes calls ready: the Ready condition, not deleting.
    """

    key: ObjectKey
    created: str
    addresses: tuple[str, ...]
    account: str
    serving: bool
    meshed: bool
    ports: Mapping[int, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: tuple[str, str] | None
    template_hash: str

    @property
    def references(self) -> tuple[ObjectKey, ...]:
        """Keys under which a policy may name this pod, other than the Services that select it."""
        if self.owner is None:
            return (self.key,)
        kind, name = self.owner
        return (self.key, ObjectKey(_OWNER_KIND_NAMES[kind], self.key.namespace, name))

    @property
    def metric_labels(self) -> dict[str, str]:
        """pod, namespace, deployment|…, pod_template_hash; those that are known."""
        labels = {"pod": self.key.name, "namespace": self.key.namespace}
        if self.owner is not None:
            labels[self.owner[0]] = self.owner[1]
        if self.template_hash:
            labels["pod_template_hash"] = self.template_hash
        return labels

    def port_named(self, name: str) -> int | None:
        """The number of the declared TCP port with this name."""
        return next((number for number, its_name in self.ports.items() if its_name == name), None)


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port of a Service. `target` is a port number or the name of a container port."""

    number: int
    name: str
    protocol: PortProtocol
    target: int | str


@dataclass(frozen=True, slots=True)
class Balanced:
    """A Service whose endpoints the mesh knows: the pods that it selects, or, where it is `remote`, what slices list.

    `vips` are its cluster addresses in the Service's order, empty when it is headless; `families` (4, 6) those of its
    endpoints, the preferred first; `ports` its TCP ports by number.
    """

    key: ObjectKey
    vips: tuple[str, ...]
    families: tuple[int, ...]
    headless: bool
    selector: Mapping[str, str]
    ports: Mapping[int, Port] = field(hash=False)
    publish_not_ready: bool
    annotations: Mapping[str, str]

    @property
    def remote(self) -> bool:
        """Whether it has no selector; an annotation names the SPIFFE ID that its endpoints prove then."""
        return not self.selector

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of the Service's namespace with these labels belongs to it."""
        return not self.remote and all(labels.get(name) == value for name, value in self.selector.items())

    def address_of(self, pod: Workload) -> str | None:
        """The one address at which this Service reaches the pod.

        A pod is one endpoint of a cluster whichever VIP was dialled: as two it would count double for every method
        that counts requests, and an application that listens on one family would fail on half of its endpoints. The
        Service's families decide in their order, as in Kubernetes; a pod with none of them is no endpoint.
        """
        for wanted in self.families:
            for address in pod.addresses:
                if family(address) == wanted:
                    return address
        return None

    def target_of(self, port: Port, pod: Workload) -> int | None:
        """The pod's port behind a port of this Service; None when it is named and the pod has no such name."""
        return port.target if isinstance(port.target, int) else pod.port_named(port.target)


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice of a Service without a selector: addresses and whether they are ready; TCP ports by name."""

    service: ObjectKey
    addresses: Mapping[str, bool]
    ports: Mapping[str, int]


def workload(pod: Pod) -> Workload:
    """The record of a Pod."""
    status = pod.status
    finished = status.phase in ("Succeeded", "Failed")
    own = [container for container in pod.spec.containers if container.name != SIDECAR_CONTAINER]
    return Workload(
        key=pod.key,
        created=pod.metadata.creation_timestamp,
        addresses=() if finished else _addresses(status.ips),
        account=pod.spec.service_account_name or "default",
        serving=status.ready and not finished and pod.metadata.deletion_timestamp is None,
        # The annotation alone is a claim that anybody can write.
        meshed=is_injected(pod.metadata.annotations) and len(own) < len(pod.spec.containers),
        ports=_declared(port for container in own for port in container.ports),
        labels=pod.metadata.labels,
        annotations=_ours(pod.metadata.annotations),
        owner=_owner(pod),
        template_hash=pod.metadata.labels.get(_TEMPLATE_HASH, ""),
    )


def balanced(service: Service) -> Balanced | None:
    """The record of a Service, None for one whose endpoints the mesh does not know."""
    spec = service.spec
    known = bool(spec.selector) or PEER_SPIFFE_ID in service.metadata.annotations
    if not known or spec.type == "ExternalName":
        return None
    vips = () if spec.headless else _addresses(spec.cluster_ips or [spec.cluster_ip])
    return Balanced(
        key=service.key,
        vips=vips,
        families=tuple(dict.fromkeys(map(family, vips)))
        or tuple(_FAMILIES[name] for name in dict.fromkeys(spec.ip_families) if name in _FAMILIES)
        or (4, 6),
        headless=spec.headless,
        selector=spec.selector,
        ports={
            port.port: Port(
                number=port.port,
                name=port.name,
                protocol=protocol_of(port=port.port, name=port.name, app_protocol=port.app_protocol),
                target=port.target_port or port.port,
            )
            for port in spec.ports
            if port.protocol == "TCP" and _exists(port.port) and _exists(port.target_port or port.port)
        },
        publish_not_ready=spec.publish_not_ready_addresses,
        annotations=_ours(service.metadata.annotations),
    )


def endpoint_slice(slice_: EndpointSlice) -> Slice | None:
    """The record of an EndpointSlice, None for one of no Service, and for those that Kubernetes makes of pods."""
    labels = slice_.metadata.labels
    name = labels.get(EndpointSlice.SERVICE_NAME)
    if not name or labels.get(_MANAGED_BY) == _OF_PODS:
        return None
    return Slice(
        service=ObjectKey(Service.KIND, slice_.metadata.namespace, name),
        addresses={
            address: endpoint.conditions.ready is not False
            for endpoint in slice_.endpoints
            for address in _addresses(endpoint.addresses)
        },
        ports={
            port.name: port.port
            for port in slice_.ports
            if port.protocol == "TCP" and port.port is not None and _exists(port.port)
        },
    )


def _addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found for address in addresses if (found := canonical(address)) is not None))


def _declared(ports: Iterable[ContainerPort]) -> dict[int, str]:
    declared: dict[int, str] = {}
    for port in ports:
        if port.protocol == "TCP" and _exists(port.container_port) and not declared.get(port.container_port):
            declared[port.container_port] = port.name
    return declared


def _exists(port: int | str) -> bool:
    """Whether a port can be dialled. One that cannot would make sidecars refuse all of their state."""
    return isinstance(port, str) or port_number(port) is None


def _ours(annotations: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if OWNER_PREFIX in name}


def _owner(pod: Pod) -> tuple[str, str] | None:
    labels = pod.metadata.labels
    for kind in _OWNER_KINDS:
        name = labels.get(OWNER_PREFIX + kind)
        if name:
            return kind, name
    for reference in pod.metadata.owner_references:
        kind = reference.kind.lower()
        if not reference.controller or kind not in _OWNER_KINDS:
            continue
        template_hash = labels.get(_TEMPLATE_HASH)
        if kind == "replicaset" and template_hash and reference.name.endswith("-" + template_hash):
            return "deployment", reference.name.removesuffix("-" + template_hash)
        return kind, reference.name
    return None
