"""Admission of objects: checks of references and immutable fields, and values that the mesh sets, such as addresses."""

from __future__ import annotations

import base64
import binascii
import random
import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import orjson

from nginx_mesh.admission import check_mesh_config, check_template
from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.kinds import as_stored
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource, key_of, namespace_labels
from nginx_mesh.api.workloadkinds import POD_OWNERS
from nginx_mesh.inject import InjectSettings, inject_pod
from nginx_mesh.local.net.allocator import AddressError, AddressPool
from nginx_mesh.local.net.network import ipv6_available
from nginx_mesh.local.net.networks import DEFAULT, SERVICE_NETWORKS, PodNetworks

from .store import Transaction, without

NODE_NAME = "local"
RESTARTED_ANNOTATION = "kubectl.kubernetes.io/restartedAt"
LAST_APPLIED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"

# The characters that Kubernetes generates names from. Without vowels, no words come up.
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_MAX_GENERATED_PREFIX = 58
# A manifest may ask for any address of the range. These first addresses are never allocated otherwise.
_SERVICE_RESERVED = 16
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
_IMMUTABLE: dict[str, tuple[str, ...]] = {
    "Deployment": ("selector",),
    "ReplicaSet": ("selector",),
    "StatefulSet": ("selector", "serviceName"),
    "DaemonSet": ("selector",),
    "Job": ("completions", "template"),
}
# Metadata that only the mesh sets. A manifest may have it, as `get` prints it.
_SERVER_METADATA = ("uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields")
_DELETION_METADATA = ("deletionTimestamp", "deletionGracePeriodSeconds")
_PERCENTAGE = re.compile(r"(100|[0-9]{1,2})%")
_STRATEGIES = ("RollingUpdate", "Recreate")


class Admission:
    """Admits objects in one transaction. `injection` are the settings of injected sidecars.

    Pods get their addresses from `networks`.
    """

    def __init__(
        self, tx: Transaction, injection: InjectSettings, rng: random.Random, networks: PodNetworks = DEFAULT
    ) -> None:
        self._networks = networks
        self._tx = tx
        self._injection = injection
        self._random = rng
        self._pools: dict[str, list[AddressPool]] = {}

    def admit(self, resource: Resource) -> Resource:
        """The object to store for a valid object, with what it keeps of the one that it replaces. Raises FieldError."""
        key = key_of(resource)
        old = self._tx.get(key)
        self._check_namespace(key)
        resource = as_stored(_without_server_fields(resource, old))
        if key.kind == "Pod":
            return self._admit_pod(resource, old)
        if old is not None:
            resource = _with_kept_fields(resource, old)
            _check_unchanged(resource, old, _IMMUTABLE.get(key.kind, ()))
        if key.kind == "Service":
            resource = self._with_cluster_ips(resource, old)
        elif key.kind == "Secret":
            resource = _with_string_data(resource)
        elif key.kind == "MeshConfig":
            check_mesh_config(key)
        elif key.kind == "Namespace":
            resource = {"status": {"phase": "Active"}, **resource}
        elif key.kind in POD_OWNERS:
            if key.kind == "Deployment":
                _check_strategy(resource["spec"].get("strategy", {}))
            with located("spec.template"):
                _check_network(resource["spec"]["template"]["spec"])
            check_template(resource, namespace_labels(self._tx, key.namespace), self._injection)
        return resource

    def new_pod(self, pod: Resource) -> Resource:
        """A new pod, with its name, its sidecar and its addresses. Raises FieldError."""
        namespace = pod["metadata"]["namespace"]
        self._check_account(namespace, pod["spec"])
        _check_network(pod["spec"])
        metadata = dict(pod["metadata"])
        if not metadata.get("name"):
            metadata["name"] = self._generated_name(metadata.pop("generateName"))
        defaults = {"serviceAccountName": "default", "restartPolicy": "Always", "nodeName": NODE_NAME}
        pod = {**pod, "metadata": metadata, "spec": {**defaults, **pod["spec"]}}
        pod = inject_pod(pod, namespace_labels(self._tx, namespace), self._injection).pod
        addresses = [pool.allocate() for pool in self._pool("Pod")]
        self._keep_cursors("Pod")
        status = {"phase": "Pending", "podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
        return {**pod, "status": status}

    def _admit_pod(self, pod: Resource, old: Resource | None) -> Resource:
        """The pod, with the spec of its manifest in an annotation: a later manifest must have the same spec."""
        written = orjson.dumps(pod["spec"], option=orjson.OPT_SORT_KEYS).decode()
        annotations = {**pod["metadata"].get("annotations", {}), LAST_APPLIED_ANNOTATION: written}
        pod = {**pod, "metadata": {**pod["metadata"], "annotations": annotations}}
        if old is None:
            return self.new_pod(pod)
        if old["metadata"].get("annotations", {}).get(LAST_APPLIED_ANNOTATION) != written:
            raise FieldError("spec", "a pod cannot be changed; delete it first")
        metadata = dict(old["metadata"])
        for name in ("labels", "annotations"):
            if given := pod["metadata"].get(name):
                metadata[name] = {**metadata.get(name, {}), **given}
        return {**old, "metadata": metadata}

    def _check_namespace(self, key: ObjectKey) -> None:
        if not key.namespace:
            return
        namespace = self._tx.get(ObjectKey("Namespace", "", key.namespace))
        if namespace is None:
            raise FieldError("metadata.namespace", f'there is no namespace "{key.namespace}"')
        if "deletionTimestamp" in namespace["metadata"]:
            raise FieldError("metadata.namespace", f'namespace "{key.namespace}" is being deleted')

    def _check_account(self, namespace: str, pod_spec: Resource) -> None:
        name = pod_spec.get("serviceAccountName") or "default"
        # Every namespace gets its default account at the end of the transaction that creates the namespace.
        if name != "default" and self._tx.get(ObjectKey("ServiceAccount", namespace, name)) is None:
            reason = f'there is no ServiceAccount "{name}" in namespace "{namespace}"'
            raise FieldError("spec.serviceAccountName", reason)

    def _generated_name(self, prefix: str) -> str:
        suffix = "".join(self._random.choices(_SUFFIX_LETTERS, k=5))
        return prefix[:_MAX_GENERATED_PREFIX] + suffix

    def _with_cluster_ips(self, service: Resource, old: Resource | None) -> Resource:
        spec: Resource = service["spec"]
        if spec.get("type") == "ExternalName":
            return service
        given: list[str] = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
        families = _ip_families(spec, given)
        if old is not None and (kept := old["spec"].get("clusterIPs")):
            families = old["spec"].get("ipFamilies", families)
            if given and given[0] != kept[0]:
                raise FieldError("spec.clusterIP", f'may not change; it is "{kept[0]}"')
            addresses = kept
        elif given == ["None"]:
            addresses = given
        else:
            addresses = self._service_addresses(given, families)
        defaults = {"type": "ClusterIP", "ipFamilyPolicy": "SingleStack"}
        assigned = {"clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilies": families}
        return {**service, "spec": {**defaults, **spec, **assigned}}

    def _service_addresses(self, given: Iterable[str], families: Sequence[str]) -> list[str]:
        """The given addresses, and an allocated one of each other family of the service."""
        pools = {number: pool for number, pool in enumerate(self._pool("Service")) if _FAMILIES[number] in families}
        addresses = []
        for number, address in enumerate(given):
            field = f"spec.clusterIPs[{number}]" if number else "spec.clusterIP"
            try:
                family = 0 if ip_address(address).version == 4 else 1
                if family not in pools:
                    raise AddressError(f"{address}: a service has one address of each family at most")
                addresses.append(pools.pop(family).claim(address))
            except ValueError:
                raise FieldError(field, f'"{address}" is not an IP address') from None
            except AddressError as error:
                raise FieldError(field, str(error)) from None
        addresses += [pool.allocate() for pool in pools.values()]
        self._keep_cursors("Service")
        return addresses

    def _pool(self, kind: str) -> list[AddressPool]:
        """The pools of the addresses of pods or services, one for each address family."""
        if kind not in self._pools:
            if kind == "Pod":
                used = {ip["ip"] for pod in self._tx.list("Pod") for ip in pod.get("status", {}).get("podIPs", [])}
                networks, reserved = self._networks.all, 2
            else:
                used = {ip for service in self._tx.list("Service") for ip in service["spec"].get("clusterIPs", [])}
                networks, reserved = SERVICE_NETWORKS, _SERVICE_RESERVED
            self._pools[kind] = [
                AddressPool(network, used, int(self._tx.fact(_cursor(kind, network.version)) or 0), reserved)
                for network in networks
                if network.version == 4 or ipv6_available()
            ]
        return self._pools[kind]

    def _keep_cursors(self, kind: str) -> None:
        for pool in self._pools[kind]:
            self._tx.set_fact(_cursor(kind, pool.version), str(pool.cursor))


def _ip_families(spec: Resource, given: Sequence[str]) -> list[str]:
    """The address families of a new Service: one, unless its ipFamilyPolicy asks for two."""
    policy = spec.get("ipFamilyPolicy") or "SingleStack"
    if policy not in _FAMILY_POLICIES:
        raise FieldError("spec.ipFamilyPolicy", f'"{policy}" is none of {", ".join(_FAMILY_POLICIES)}')
    families = list(spec.get("ipFamilies") or [_FAMILIES[":" in address] for address in given if address != "None"])
    for number, family in enumerate(families):
        if family not in _FAMILIES or family in families[:number]:
            raise FieldError(f"spec.ipFamilies[{number}]", f'"{family}" is not IPv4 or IPv6, once each')
    families = families or ["IPv4"]
    if policy == "SingleStack":
        return families
    if not ipv6_available():
        if policy == "RequireDualStack":
            raise FieldError("spec.ipFamilyPolicy", "this machine has no IPv6")
        return families[:1]
    return families + [family for family in _FAMILIES if family not in families]


def _cursor(kind: str, version: int) -> str:
    return f"cursor/{kind}/{version}"


def _without_server_fields(resource: Resource, old: Resource | None) -> Resource:
    """The object without the fields that only the mesh sets, so that the output of `get` can be applied again."""
    metadata = without(resource["metadata"], *_SERVER_METADATA, *_DELETION_METADATA)
    if old is not None:
        metadata |= {name: old["metadata"][name] for name in _DELETION_METADATA if name in old["metadata"]}
    return {**without(resource, "status"), "metadata": metadata}


def _with_kept_fields(resource: Resource, old: Resource) -> Resource:
    """The object with the status of the one that it replaces, and with the annotation of a restart of its pods."""
    kept: dict[str, Any] = {"status": old["status"]} if "status" in old else {}
    template, old_template = (item.get("spec", {}).get("template") or {} for item in (resource, old))
    restarted = old_template.get("metadata", {}).get("annotations", {}).get(RESTARTED_ANNOTATION)
    if restarted is not None:
        metadata = template.get("metadata", {})
        annotations = {RESTARTED_ANNOTATION: restarted, **metadata.get("annotations", {})}
        template = {**template, "metadata": {**metadata, "annotations": annotations}}
        resource = {**resource, "spec": {**resource["spec"], "template": template}}
    return {**resource, **kept}


def _with_string_data(secret: Resource) -> Resource:
    data = dict(secret.get("data", {}))
    for name, value in data.items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise FieldError(f"data.{name}", "is not base64") from None
    for name, text in secret.get("stringData", {}).items():
        data[name] = base64.b64encode(text.encode()).decode()
    return {"type": "Opaque", **without(secret, "data", "stringData"), "data": data}


def _check_unchanged(resource: Resource, old: Resource, fields: Iterable[str]) -> None:
    for field in fields:
        if resource["spec"].get(field) != old["spec"].get(field):
            raise FieldError(f"spec.{field}", "may not change; delete the object first")


def _check_network(pod_spec: Resource) -> None:
    if pod_spec.get("hostNetwork"):
        raise FieldError("spec.hostNetwork", "the local mesh runs no pods in the host's network")


def _check_strategy(strategy: Resource) -> None:
    kind = strategy.get("type", "RollingUpdate")
    if kind not in _STRATEGIES:
        raise FieldError("spec.strategy.type", f'"{kind}" is not one of {", ".join(_STRATEGIES)}')
    for name, value in strategy.get("rollingUpdate", {}).items():
        if isinstance(value, str) and not _PERCENTAGE.fullmatch(value):
            raise FieldError(f"spec.strategy.rollingUpdate.{name}", f'"{value}" is not a percentage such as "25%"')
        if isinstance(value, int) and value < 0:
            raise FieldError(f"spec.strategy.rollingUpdate.{name}", f"{value} is less than 0")
