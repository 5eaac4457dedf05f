"""One object by itself."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from .. import annotations as mesh
from ..cluster import Namespace
from ..config import ConfigMap, Secret
from ..errors import FieldError, join, step
from ..meta import Object
from ..names import data_key, label_name, label_value, port_name, port_number, qualified_key
from ..nsm import CircuitBreaker, MeshConfig, MeshConfigClass, RateLimit
from ..pods import Pod, PodTemplateSpec
from ..selectors import LabelSelector
from ..services import EndpointSlice, Service, ServicePort
from ..smi import HTTPRouteGroup, TrafficSplit, TrafficTarget
from ..workloads import DaemonSet, Deployment, Job, ReplicaSet, ReplicationController, StatefulSet
from . import pods, policies
from .checks import Errors, at, at_least, labels, must, one_of, unique
from .metadata import metadata

_MAX_DATA = 1 << 20
_SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_ADDRESS_TYPES = {"IPv4": 4, "IPv6": 6}
_MAX_SLICE_ENDPOINTS = 1000
_MAX_SLICE_PORTS = 100
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def validate(obj: Object) -> list[FieldError]:
    """All that is wrong with an object; fields are paths from its root, such as `spec.ports[0].port`."""
    errors = list(at("metadata", metadata(obj)))
    check = _BY_TYPE.get(type(obj))
    if check is not None:
        errors += check(obj)
    return errors


def _namespace(namespace: Namespace) -> Errors:
    return at("metadata", mesh.check_namespace(namespace.metadata.labels))


def _pod(pod: Pod) -> Errors:
    yield from at("metadata", mesh.check_pod(pod.metadata.labels, pod.metadata.annotations))
    yield from at("spec", pods.pod(pod.spec))


def _service(service: Service) -> Errors:
    spec = service.spec
    yield from at("metadata", mesh.check_service(service.metadata.annotations))
    yield from one_of("spec.type", spec.type, _SERVICE_TYPES)
    yield from labels("spec.selector", spec.selector)
    if mesh.PEER_SPIFFE_ID in service.metadata.annotations and spec.selector:
        yield FieldError(f"metadata.annotations[{mesh.PEER_SPIFFE_ID}]", mesh.NO_PEER_OF_PODS)
    addresses = [("spec.clusterIP", spec.cluster_ip)]
    addresses += [(f"spec.clusterIPs[{index}]", address) for index, address in enumerate(spec.cluster_ips)]
    for field, address in addresses:
        if address not in ("", "None") and not _is_address(address):
            yield FieldError(field, f'"{address}" is neither an IP address nor None')
    if not spec.ports and not spec.headless and spec.type != "ExternalName":
        yield FieldError("spec.ports", "is required, except for headless and ExternalName services")
    ports = list(enumerate(spec.ports))
    yield from unique("spec.ports", ((f"[{index}].name", port.name) for index, port in ports if port.name))
    yield from unique("spec.ports", ((f"[{index}].port", (port.port, port.protocol)) for index, port in ports))
    for index, port in ports:
        yield from at(f"spec.ports[{index}]", _service_port(port, alone=len(ports) == 1))


def _service_port(port: ServicePort, *, alone: bool) -> Errors:
    yield from must("port", port_number(port.port))
    yield from one_of("protocol", port.protocol, ("TCP", "UDP", "SCTP"))
    if port.name or not alone:
        reason = label_name(port.name)
        yield from must("name", "is required when there is more than one port" if reason == "is required" else reason)
    if isinstance(port.target_port, int):
        yield from must("targetPort", port_number(port.target_port))
    elif port.target_port is not None:
        yield from must("targetPort", port_name(port.target_port))
    if port.node_port is not None:
        yield from must("nodePort", port_number(port.node_port))


def _endpoint_slice(slice_: EndpointSlice) -> Errors:
    name = EndpointSlice.SERVICE_NAME
    yield from must(f"metadata.labels[{name}]", label_name(slice_.metadata.labels.get(name, "")))
    yield from one_of("addressType", slice_.address_type, tuple(_ADDRESS_TYPES))
    if len(slice_.endpoints) > _MAX_SLICE_ENDPOINTS:
        yield FieldError("endpoints", f"has {len(slice_.endpoints)} items; the limit is {_MAX_SLICE_ENDPOINTS}")
    if len(slice_.ports) > _MAX_SLICE_PORTS:
        yield FieldError("ports", f"has {len(slice_.ports)} items; the limit is {_MAX_SLICE_PORTS}")
    for index, endpoint in enumerate(slice_.endpoints):
        path = f"endpoints[{index}]"
        if not endpoint.addresses:
            yield FieldError(f"{path}.addresses", "is required")
        for number, address in enumerate(endpoint.addresses):
            yield from must(f"{path}.addresses[{number}]", _not_an_endpoint(address, slice_.address_type))
        if endpoint.hostname:
            yield from must(f"{path}.hostname", label_name(endpoint.hostname))
    yield from unique("ports", ((f"[{index}].name", port.name) for index, port in enumerate(slice_.ports)))
    for index, port in enumerate(slice_.ports):
        path = f"ports[{index}]"
        yield from must(f"{path}.port", "is required" if port.port is None else port_number(port.port))
        yield from one_of(f"{path}.protocol", port.protocol, ("TCP", "UDP", "SCTP"))
        if port.name:
            yield from must(f"{path}.name", label_name(port.name))


def _not_an_endpoint(text: str, address_type: str) -> str | None:
    """Why an address cannot be an endpoint's: as in Kubernetes, no slice leads to the caller's own machine."""
    if not _is_address(text) or "%" in text:
        return f'"{text}" is not an IP address'
    address = ipaddress.ip_address(text)
    if address.version != _ADDRESS_TYPES.get(address_type, address.version):
        return f'"{text}" is not an {address_type} address'
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return f'"{text}" is a loopback, link-local, multicast or unspecified address'
    return None


def _config_map(config: ConfigMap) -> Errors:
    yield from _data({"data": config.data, "binaryData": config.binary_data}, encoded=("binaryData",))
    for key in config.data.keys() & config.binary_data.keys():
        yield FieldError(join("binaryData", step(key)), "is in data as well")


def _secret(secret: Secret) -> Errors:
    return _data({"data": secret.data, "stringData": secret.string_data}, encoded=("data",))


def _data(fields: Mapping[str, Mapping[str, str]], encoded: tuple[str, ...]) -> Errors:
    size = 0
    for field, entries in fields.items():
        for key, value in entries.items():
            size += len(value)
            yield from must(join(field, step(key)), data_key(key))
            if field in encoded and not _is_base64(value):
                yield FieldError(join(field, step(key)), "is not base64")
    if size > _MAX_DATA:
        yield FieldError(next(iter(fields)), "is larger than 1 MiB")


def _deployment(workload: Deployment | ReplicaSet) -> Errors:
    yield from at_least("spec.replicas", workload.spec.replicas, 0)
    yield from _workload(workload.spec.selector, workload.spec.template)


def _stateful_set(workload: StatefulSet) -> Errors:
    yield from at_least("spec.replicas", workload.spec.replicas, 0)
    if workload.spec.service_name:
        yield from must("spec.serviceName", label_name(workload.spec.service_name))
    yield from _workload(workload.spec.selector, workload.spec.template)


def _daemon_set(workload: DaemonSet) -> Errors:
    return _workload(workload.spec.selector, workload.spec.template)


def _replication_controller(workload: ReplicationController) -> Errors:
    spec = workload.spec
    yield from at_least("spec.replicas", spec.replicas, 0)
    selector = LabelSelector(match_labels=spec.selector or spec.template.metadata.labels)
    yield from _selects(selector, spec.template)
    yield from at("spec.template", pods.template(spec.template, ("Always",)))


def _job(job: Job) -> Errors:
    spec = job.spec
    for field, value in (
        ("completions", spec.completions),
        ("parallelism", spec.parallelism),
        ("backoffLimit", spec.backoff_limit),
    ):
        yield from at_least(f"spec.{field}", value, 0)
    yield from at("spec.template", pods.template(spec.template, ("OnFailure", "Never")))


def _workload(selector: LabelSelector, template: PodTemplateSpec) -> Errors:
    wrong = list(_selector(selector))
    yield from at("spec.selector", wrong)
    if not wrong:
        yield from _selects(selector, template)
    yield from at("spec.template", pods.template(template, ("Always",)))


def _selector(selector: LabelSelector) -> Errors:
    yield from labels("matchLabels", selector.match_labels)
    for index, term in enumerate(selector.match_expressions):
        path = f"matchExpressions[{index}]"
        yield from must(f"{path}.key", qualified_key(term.key))
        yield from one_of(f"{path}.operator", term.operator, _OPERATORS)
        if (term.operator in ("In", "NotIn")) != bool(term.values):
            yield FieldError(f"{path}.values", "must be given for In and NotIn, and only for them")
        for value in term.values:
            yield from must(f"{path}.values", label_value(value))


def _selects(selector: LabelSelector, template: PodTemplateSpec) -> Errors:
    if not selector.match_labels and not selector.match_expressions:
        yield FieldError("spec.selector", "is required")
    elif not selector_matches(selector, template.metadata.labels):
        yield FieldError("spec.template.metadata.labels", "are not what spec.selector selects")


def selector_matches(selector: LabelSelector, values: Mapping[str, str]) -> bool:
    """Whether a label selector selects what has these labels."""
    if any(values.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for term in selector.match_expressions:
        value = values.get(term.key)
        holds = {
            "In": value in term.values,
            "NotIn": value not in term.values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds.get(term.operator, False):
            return False
    return True


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


_BY_TYPE: dict[type[Object], Callable[[Any], Errors]] = {
    Namespace: _namespace,
    Pod: _pod,
    Service: _service,
    EndpointSlice: _endpoint_slice,
    ConfigMap: _config_map,
    Secret: _secret,
    Deployment: _deployment,
    ReplicaSet: _deployment,
    StatefulSet: _stateful_set,
    DaemonSet: _daemon_set,
    ReplicationController: _replication_controller,
    Job: _job,
    TrafficTarget: lambda target: at("spec", policies.traffic_target(target)),
    HTTPRouteGroup: lambda group: at("spec", policies.http_route_group(group)),
    TrafficSplit: lambda split: at("spec", policies.traffic_split(split)),
    RateLimit: lambda limit: at("spec", policies.rate_limit(limit)),
    CircuitBreaker: lambda breaker: at("spec", policies.circuit_breaker(breaker)),
    MeshConfig: lambda config: at("spec", policies.mesh_config(config)),
    MeshConfigClass: lambda config_class: at("spec", policies.mesh_config_class(config_class)),
}
