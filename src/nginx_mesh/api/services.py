"""Services, and the addresses behind them."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .meta import IntOrString, Model, Object, ObjectReference


class ServicePort(Model, frozen=True, kw_only=True):
    """spec.ports[] of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: IntOrString | None = None
    node_port: int | None = None


class ServiceSpec(Model, frozen=True, kw_only=True):
    """Service spec. `cluster_ip` is "None" for headless services."""

    type: str = "ClusterIP"
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] = msgspec.field(name="clusterIPs", default_factory=list)
    ip_family_policy: str = msgspec.field(name="ipFamilyPolicy", default="")
    ip_families: list[str] = msgspec.field(name="ipFamilies", default_factory=list)
    publish_not_ready_addresses: bool = False

    @property
    def headless(self) -> bool:
        """Whether DNS gives the pods' own addresses."""
        return self.cluster_ip == "None"


class Service(Object, frozen=True, kw_only=True):
    """v1 Service."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Service"
    PLURAL: ClassVar[str] = "services"

    spec: ServiceSpec


class EndpointAddress(Model, frozen=True, kw_only=True):
    """subsets[].addresses[] or notReadyAddresses[]; `target_ref` is the pod that has the address."""

    ip: str
    hostname: str = ""
    target_ref: ObjectReference | None = None


class EndpointPort(Model, frozen=True, kw_only=True):
    """subsets[].ports[]; `name` is that of the Service's port."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSubset(Model, frozen=True, kw_only=True):
    """subsets[] of Endpoints: every address has every port."""

    addresses: list[EndpointAddress] = []
    not_ready_addresses: list[EndpointAddress] = []
    ports: list[EndpointPort] = []


class Endpoints(Object, frozen=True, kw_only=True):
    """v1 Endpoints: addresses behind the Service of the same name. EndpointSlices have taken its place."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Endpoints"
    PLURAL: ClassVar[str] = "endpoints"

    subsets: list[EndpointSubset] = []


class EndpointConditions(Model, frozen=True, kw_only=True):
    """endpoints[].conditions; what is not said to be unready is ready."""

    ready: bool | None = None


class SliceEndpoint(Model, frozen=True, kw_only=True):
    """endpoints[] of an EndpointSlice; `target_ref` is the pod that has the addresses."""

    addresses: list[str] = []
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    target_ref: ObjectReference | None = None


class SlicePort(Model, frozen=True, kw_only=True):
    """ports[] of an EndpointSlice; `name` is that of the Service's port."""

    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSlice(Object, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice: addresses behind the Service that its label names."""

    API_VERSION: ClassVar[str] = "discovery.k8s.io/v1"
    KIND: ClassVar[str] = "EndpointSlice"
    PLURAL: ClassVar[str] = "endpointslices"
    SERVICE_NAME: ClassVar[str] = "kubernetes.io/service-name"

    address_type: str
    endpoints: list[SliceEndpoint] = []
    ports: list[SlicePort] = []
