"""Records: the parts of Pods, Services and EndpointSlices that the mesh acts on.

An update of an object that leaves its record equal changes nothing: most updates of a Pod's status end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from nginx_mesh.api.annotations import OWNER_PREFIX, PEER_SPIFFE_ID, SIDECAR_CONTAINER, is_injected
from nginx_mesh.api.containers import ContainerPort
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.names import port_number
from nginx_mesh.api.owners import OWNER_KINDS, TEMPLATE_HASH, controller
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.portprotocol import PortProtocol, protocol_of
from nginx_mesh.api.services import EndpointSlice, Service

from .addresses import canonical, family
from .changes import ServicePort

_FAMILIES = {"IPv4": 4, "IPv6": 6}
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_KUBERNETES_CONTROLLER = "endpointslice-controller.k8s.io"


class Caller(NamedTuple):
    """How servers can recognise a pod that calls them: by its account (namespace, ServiceAccount) or its addresses."""

    account: tuple[str, str]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A Pod. `addresses` is empty while it has none and once it has finished.

    `ports` are the declared TCP ports, number to name. `owner` is (lower-case kind, name) of the workload that the pod
    belongs to, a Deployment rather than its ReplicaSet. `ready` is as in EndpointSlices: the Ready condition is true
    and the pod is not being deleted.
    """

    key: ObjectKey
    created: str
    addresses: tuple[str, ...]
    account: str
    ready: bool
    meshed: bool
    ports: Mapping[int, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: tuple[str, str] | None
    template_hash: str

    @property
    def references(self) -> tuple[ObjectKey, ...]:
        """The keys by which a policy may refer to this pod, apart from the Services that select it."""
        if self.owner is None:
            return (self.key,)
        kind, name = self.owner
        return (self.key, ObjectKey(OWNER_KINDS[kind], self.key.namespace, name))

    @property
    def metric_labels(self) -> dict[str, str]:
        """The labels pod, namespace, deployment (or another kind of owner) and pod_template_hash, as far as known."""
        labels = {"pod": self.key.name, "namespace": self.key.namespace}
        if self.owner is not None:
            labels[self.owner[0]] = self.owner[1]
        if self.template_hash:
            labels["pod_template_hash"] = self.template_hash
        return labels

    @property
    def caller(self) -> Caller:
        """The pod as a caller."""
        return Caller((self.key.namespace, self.account), self.addresses)

    def port_named(self, name: str) -> int | None:
        """The number of the declared TCP port with this name."""
        return next((number for number, port_name in self.ports.items() if port_name == name), None)


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port of a Service. `target` is a port number or the name of a container port."""

    number: int
    name: str
    protocol: PortProtocol
    target: int | str


@dataclass(frozen=True, slots=True)
class PortUse:
    """How a TCP port of a pod is used.

    `protocols` are those that the Services targeting the port give it, sorted; its own when no Service targets it. More
    than one means that Services disagree. `service` is one that targets it, for metrics: the first by name, headless
    ones before others; None when there is none. `declared`: the port is among the containers' ports. `headless` are the
    ports of headless Services that target it, sorted: a caller that dials the pod may have resolved any of them.
    """

    protocols: tuple[PortProtocol, ...]
    service: ObjectKey | None
    declared: bool
    headless: tuple[ServicePort, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """A Service whose endpoints the mesh knows: the pods that it selects or, for a remote one, those in EndpointSlices.

    `vips` are its cluster IPs in the Service's order, none when it is headless. `families` are the IP families (4, 6)
    of its endpoints, the preferred one first. `ports` are its TCP ports by number.
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
        """Whether it has no selector. An annotation then names the SPIFFE ID of its endpoints."""
        return not self.selector

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of the Service's namespace with these labels belongs to it."""
        return not self.remote and all(labels.get(name) == value for name, value in self.selector.items())

    def address_of(self, pod: PodRecord) -> str | None:
        """The one address at which this Service reaches the pod, None when the pod has none of the Service's families.

        A pod is one endpoint, whichever VIP was dialled. As two endpoints it would count twice in load balancing
        methods that count requests, and an application that listens on one IP family would fail half of its requests.
        The order of the Service's families decides, as in Kubernetes.
        """
        for wanted in self.families:
            for address in pod.addresses:
                if family(address) == wanted:
                    return address
        return None

    def target_of(self, port: Port, pod: PodRecord) -> int | None:
        """The pod's port for a port of this Service; None when the target is a name that the pod does not declare."""
        return port.target if isinstance(port.target, int) else pod.port_named(port.target)


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """An EndpointSlice of a remote Service: `addresses` with whether they are ready, and its TCP `ports` by name."""

    service: ObjectKey
    addresses: Mapping[str, bool]
    ports: Mapping[str, int]


def pod_record(pod: Pod) -> PodRecord:
    """The record of a Pod."""
    status = pod.status
    finished = status.phase in ("Succeeded", "Failed")
    own = [container for container in pod.spec.containers if container.name != SIDECAR_CONTAINER]
    return PodRecord(
        key=pod.key,
        created=pod.metadata.creation_timestamp,
        addresses=() if finished else _addresses(status.ips),
        account=pod.spec.service_account_name or "default",
        ready=status.ready and not finished and pod.metadata.deletion_timestamp is None,
        # The annotation alone proves nothing: anybody can write it.
        meshed=is_injected(pod.metadata.annotations) and len(own) < len(pod.spec.containers),
        ports=_declared_ports(port for container in own for port in container.ports),
        labels=pod.metadata.labels,
        annotations=_mesh_annotations(pod.metadata.annotations),
        owner=_owner(pod),
        template_hash=pod.metadata.labels.get(TEMPLATE_HASH, ""),
    )


def service_record(service: Service) -> ServiceRecord | None:
    """The record of a Service, None when the mesh does not know the Service's endpoints."""
    spec = service.spec
    known = bool(spec.selector) or PEER_SPIFFE_ID in service.metadata.annotations
    if not known or spec.type == "ExternalName":
        return None
    vips = () if spec.headless else _addresses(spec.cluster_ips or [spec.cluster_ip])
    return ServiceRecord(
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
            if port.protocol == "TCP" and _is_valid_port(port.port) and _is_valid_port(port.target_port or port.port)
        },
        publish_not_ready=spec.publish_not_ready_addresses,
        annotations=_mesh_annotations(service.metadata.annotations),
    )


def slice_record(slice_: EndpointSlice) -> SliceRecord | None:
    """The record of an EndpointSlice, None when it names no Service or when Kubernetes makes it from a selector."""
    labels = slice_.metadata.labels
    name = labels.get(EndpointSlice.SERVICE_NAME)
    if not name or labels.get(_MANAGED_BY) == _KUBERNETES_CONTROLLER:
        return None
    return SliceRecord(
        service=ObjectKey(Service.KIND, slice_.metadata.namespace, name),
        addresses={
            address: endpoint.conditions.ready is not False
            for endpoint in slice_.endpoints
            for address in _addresses(endpoint.addresses)
        },
        ports={
            port.name: port.port
            for port in slice_.ports
            if port.protocol == "TCP" and port.port is not None and _is_valid_port(port.port)
        },
    )


def _addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found for address in addresses if (found := canonical(address)) is not None))


def _declared_ports(ports: Iterable[ContainerPort]) -> dict[int, str]:
    declared: dict[int, str] = {}
    for port in ports:
        if port.protocol == "TCP" and _is_valid_port(port.container_port) and not declared.get(port.container_port):
            declared[port.container_port] = port.name
    return declared


def _is_valid_port(port: int | str) -> bool:
    """Whether a port is a name or a valid number. Sidecars would refuse their whole state for an invalid one."""
    return isinstance(port, str) or port_number(port) is None


def _mesh_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if OWNER_PREFIX in name}


def _owner(pod: Pod) -> tuple[str, str] | None:
    """(lower-case kind, name), by the label that injection adds, else by the pod's ownerReferences."""
    for kind in OWNER_KINDS:
        name = pod.metadata.labels.get(OWNER_PREFIX + kind)
        if name:
            return kind, name
    owner = controller(pod.metadata)
    return (owner[0].lower(), owner[1]) if owner is not None and owner[0].lower() in OWNER_KINDS else None
