from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from nginx_mesh.api.kinds import decode
from nginx_mesh.api.selectors import LabelSelector, LabelSelectorRequirement
from nginx_mesh.api.validate import validate
from nginx_mesh.api.validate.objects import selector_matches

Raw = dict[str, Any]


def pod_spec(**container: Any) -> Raw:
    return {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 80}], **container}]}


SOUND: dict[str, Raw] = {
    "Namespace": {"metadata": {"name": "shop", "labels": {"injector.nsm.nginx.com/auto-inject": "enabled"}}},
    "Pod": {"spec": pod_spec(readinessProbe={"httpGet": {"port": "http"}})},
    "Service": {"spec": {"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 80, "protocol": "UDP"}]}},
    "Headless": {"spec": {"clusterIP": "None"}},
    "EndpointSlice": {
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": True}, "hostname": "a", "nodeName": "n"}],
        "ports": [{"name": "http", "port": 80}, {"port": 53, "protocol": "UDP"}],
    },
    "ConfigMap": {"data": {"a.conf": "x"}, "binaryData": {"b": "aGk="}},
    "Secret": {"data": {"token": "aGk="}},
    "Deployment": {
        "spec": {
            "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]},
            "template": {"metadata": {"labels": {"app": "web", "v": "1"}}, "spec": pod_spec()},
        }
    },
    "StatefulSet": {
        "spec": {
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec()},
        }
    },
    "DaemonSet": {
        "spec": {
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec()},
        }
    },
    "ReplicationController": {"spec": {"template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec()}}},
    "Job": {"spec": {"template": {"spec": {**pod_spec(), "restartPolicy": "Never"}}}},
    "TrafficTarget": {
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": "web", "port": 80},
            "sources": [{"kind": "ServiceAccount", "name": "client", "namespace": "other"}],
            "rules": [
                {"kind": "HTTPRouteGroup", "name": "routes", "matches": ["get"]},
                {"kind": "TCPRoute", "name": "tcp"},
            ],
        }
    },
    "HTTPRouteGroup": {
        "spec": {
            "matches": [
                {"name": "get", "pathRegex": "/a.*", "methods": ["GET"], "headers": {"X-A": "^b$"}},
                {"name": "any", "pathRegex": "*", "methods": ["*"]},
                {"name": "pcre", "pathRegex": r"(?<name>\d+)\k<name>\h\K"},
            ]
        }
    },
    "TCPRoute": {},
    "TrafficSplit": {
        "spec": {
            "service": "web",
            "backends": [{"service": "web-v1", "weight": 0}, {"service": "web-v2", "weight": 100}],
            "matches": [{"kind": "HTTPRouteGroup", "name": "routes", "apiGroup": "specs.smi-spec.io"}],
        }
    },
    "RateLimit": {
        "spec": {
            "destination": {"kind": "Service", "name": "web"},
            "sources": [{"kind": "Deployment", "name": "a"}, {"kind": "Deployment", "name": "a", "namespace": "other"}],
            "name": "10rs",
            "rate": "10r/s",
            "burst": 5,
            "delay": "nodelay",
        }
    },
    "CircuitBreaker": {
        "spec": {
            "destination": {"kind": "Service", "name": "web"},
            "errors": 1,
            "timeoutSeconds": 30,
            "fallback": {"service": "shop/backup", "port": 8080},
        }
    },
    "MeshConfig": {"spec": {"meshConfigClassName": "c", "mtls": {"svidTTL": "5m"}}},
    "MeshConfigClass": {"metadata": {"name": "c"}, "spec": {"controllerName": "nsm.nginx.com/meshconfig-controller"}},
}
API_VERSIONS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "TrafficTarget": "access.smi-spec.io/v1alpha2",
    "HTTPRouteGroup": "specs.smi-spec.io/v1alpha3",
    "TCPRoute": "specs.smi-spec.io/v1alpha3",
    "EndpointSlice": "discovery.k8s.io/v1",
    "TrafficSplit": "split.smi-spec.io/v1alpha3",
    "RateLimit": "specs.smi.nginx.com/v1alpha2",
    "CircuitBreaker": "specs.smi.nginx.com/v1alpha1",
    "MeshConfig": "nsm.nginx.com/v1alpha2",
    "MeshConfigClass": "nsm.nginx.com/v1alpha2",
}


def errors(kind: str, raw: Raw) -> dict[str, str]:
    real_kind = "Service" if kind == "Headless" else kind
    whole = {
        "apiVersion": API_VERSIONS.get(kind, "v1"),
        "kind": real_kind,
        "metadata": {"name": "web", "namespace": "shop"},
        **raw,
    }
    return {error.field: error.reason for error in validate(decode(whole))}


def changed(raw: Raw, path: str, value: Any) -> Raw:
    """A copy with another value at a path such as spec.ports.0.port; None takes it away."""
    raw = copy.deepcopy(raw)
    parts: list[Any] = [int(part) if part.isdigit() else part for part in path.split(".")]
    *parents, last = parts
    at: Any = raw
    for part in parents:
        at = at[part] if isinstance(at, list) or part in at else at.setdefault(part, {})
    if value is None:
        del at[last]
    elif isinstance(at, list) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return raw


@pytest.mark.parametrize("kind", SOUND)
def test_sound_objects_pass(kind: str) -> None:
    assert errors(kind, SOUND[kind]) == {}


CASES: list[tuple[str, str, Any, str]] = [
    # kind, path, value, field of the error
    ("Namespace", "metadata.name", "a.b", "metadata.name"),
    ("Namespace", "metadata.namespace", "shop", "metadata.namespace"),
    (
        "Namespace",
        "metadata.labels",
        {"injector.nsm.nginx.com/auto-inject": "true"},
        "metadata.labels[injector.nsm.nginx.com/auto-inject]",
    ),
    ("Pod", "metadata", {"namespace": "shop"}, "metadata.name"),
    ("Pod", "metadata", {"name": "a" * 254}, "metadata.name"),
    ("Pod", "metadata", {"name": "a", "namespace": "A"}, "metadata.namespace"),
    ("Pod", "metadata", {"name": "a", "labels": {"a b": "c"}}, "metadata.labels[a b]"),
    ("Pod", "metadata", {"name": "a", "labels": {"a": "b c"}}, "metadata.labels.a"),
    ("Pod", "metadata", {"name": "a", "labels": {"/a": "b"}}, "metadata.labels[/a]"),
    ("Pod", "metadata", {"name": "a", "annotations": {"a/b/c": "x"}}, "metadata.annotations[a/b/c]"),
    ("Pod", "metadata", {"name": "a", "annotations": {"a": "x" * (256 << 10)}}, "metadata.annotations"),
    (
        "Pod",
        "metadata",
        {"name": "a", "annotations": {"config.nsm.nginx.com/mtls-mode": "x"}},
        "metadata.annotations[config.nsm.nginx.com/mtls-mode]",
    ),
    ("Pod", "spec.containers", [], "spec.containers"),
    ("Pod", "spec.containers.0.name", "App", "spec.containers[0].name"),
    ("Pod", "spec.containers.1", {"name": "app"}, "spec.containers[1].name"),
    ("Pod", "spec.initContainers", [{"name": "app"}], "spec.containers[0].name"),
    ("Pod", "spec.containers.0.ports.0.containerPort", 65536, "spec.containers[0].ports[0].containerPort"),
    ("Pod", "spec.containers.0.ports.0.hostPort", 0, "spec.containers[0].ports[0].hostPort"),
    ("Pod", "spec.containers.0.ports.0.protocol", "tcp", "spec.containers[0].ports[0].protocol"),
    (
        "Pod",
        "spec.containers.0.ports.1",
        {"name": "a-name-far-too-long", "containerPort": 81},
        "spec.containers[0].ports[1].name",
    ),
    ("Pod", "spec.containers.0.ports.1", {"name": "80", "containerPort": 81}, "spec.containers[0].ports[1].name"),
    ("Pod", "spec.containers.0.ports.1", {"name": "http", "containerPort": 81}, "spec.containers[0].ports[1].name"),
    ("Pod", "spec.containers.0.env", [{"name": "A=B"}], "spec.containers[0].env[0].name"),
    ("Pod", "spec.containers.0.env", [{"name": "A", "valueFrom": {}}], "spec.containers[0].env[0].valueFrom"),
    (
        "Pod",
        "spec.containers.0.env",
        [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "spec.containers[0].env[0].valueFrom",
    ),
    ("Pod", "spec.containers.0.envFrom", [{"prefix": "A"}], "spec.containers[0].envFrom[0]"),
    (
        "Pod",
        "spec.containers.0.volumeMounts",
        [{"name": "x", "mountPath": "/x"}],
        "spec.containers[0].volumeMounts[0].name",
    ),
    ("Pod", "spec.volumes", [{"name": "x", "emptyDir": {}, "secret": {"secretName": "s"}}], "spec.volumes[0]"),
    ("Pod", "spec.volumes", [{"name": "x"}, {"name": "x"}], "spec.volumes[1].name"),
    (
        "Pod",
        "spec.volumes",
        [{"name": "x", "configMap": {"name": "c", "defaultMode": 4096}}],
        "spec.volumes[0].configMap.defaultMode",
    ),
    (
        "Pod",
        "spec.volumes",
        [{"name": "x", "secret": {"secretName": "c", "items": [{"key": "k", "path": "../k"}]}}],
        "spec.volumes[0].secret.items[0].path",
    ),
    ("Pod", "spec.containers.0.readinessProbe", {}, "spec.containers[0].readinessProbe"),
    ("Pod", "spec.containers.0.readinessProbe.tcpSocket", {"port": 80}, "spec.containers[0].readinessProbe"),
    ("Pod", "spec.containers.0.readinessProbe.httpGet.port", "web", "spec.containers[0].readinessProbe.httpGet.port"),
    (
        "Pod",
        "spec.containers.0.readinessProbe.httpGet.scheme",
        "http",
        "spec.containers[0].readinessProbe.httpGet.scheme",
    ),
    ("Pod", "spec.containers.0.readinessProbe.periodSeconds", 0, "spec.containers[0].readinessProbe.periodSeconds"),
    (
        "Pod",
        "spec.containers.0.livenessProbe",
        {"exec": {"command": ["true"]}, "successThreshold": 2},
        "spec.containers[0].livenessProbe.successThreshold",
    ),
    ("Pod", "spec.containers.0.startupProbe", {"exec": {}}, "spec.containers[0].startupProbe.exec.command"),
    ("Pod", "spec.containers.0.startupProbe", {"grpc": {"port": 0}}, "spec.containers[0].startupProbe.grpc.port"),
    (
        "Pod",
        "spec.containers.0.readinessProbe.httpGet.httpHeaders",
        [{"name": "a b", "value": ""}],
        "spec.containers[0].readinessProbe.httpGet.httpHeaders[0].name",
    ),
    ("Pod", "spec.containers.0.securityContext", {"runAsUser": -1}, "spec.containers[0].securityContext.runAsUser"),
    ("Pod", "spec.securityContext", {"fsGroup": 1 << 31}, "spec.securityContext.fsGroup"),
    ("Pod", "spec.restartPolicy", "Sometimes", "spec.restartPolicy"),
    ("Pod", "spec.terminationGracePeriodSeconds", -1, "spec.terminationGracePeriodSeconds"),
    ("Pod", "spec.serviceAccountName", "Web", "spec.serviceAccountName"),
    ("Pod", "spec.hostname", "a.b", "spec.hostname"),
    ("Service", "metadata", {"name": "a.b"}, "metadata.name"),
    (
        "Service",
        "metadata",
        {"name": "a", "annotations": {"config.nsm.nginx.com/lb-method": "x"}},
        "metadata.annotations[config.nsm.nginx.com/lb-method]",
    ),
    *(
        (
            "Service",
            "metadata",
            {"name": "a", "annotations": {"config.nsm.nginx.com/peer-spiffe-id": peer}},
            "metadata.annotations[config.nsm.nginx.com/peer-spiffe-id]",
        )
        for peer in (
            "",
            "web",
            "spiffe://other.example",
            "spiffe://Other/a",
            "spiffe://other.example/a/",
            "https://a/b",
        )
    ),
    ("EndpointSlice", "metadata.labels", {}, "metadata.labels[kubernetes.io/service-name]"),
    (
        "EndpointSlice",
        "metadata.labels",
        {"kubernetes.io/service-name": "A"},
        "metadata.labels[kubernetes.io/service-name]",
    ),
    ("EndpointSlice", "addressType", "FQDN", "addressType"),
    ("EndpointSlice", "endpoints.0.addresses", [], "endpoints[0].addresses"),
    *(
        ("EndpointSlice", "endpoints.0.addresses.0", address, "endpoints[0].addresses[0]")
        for address in ("web.example", "fd00::1", "127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0")
    ),
    ("EndpointSlice", "endpoints.0.hostname", "a.b", "endpoints[0].hostname"),
    ("EndpointSlice", "ports.0.port", None, "ports[0].port"),
    ("EndpointSlice", "ports.0.port", 0, "ports[0].port"),
    ("EndpointSlice", "ports.0.protocol", "HTTP", "ports[0].protocol"),
    ("EndpointSlice", "ports.0.name", "", "ports[1].name"),
    ("EndpointSlice", "endpoints", [{"addresses": ["10.1.0.1"]}] * 1001, "endpoints"),
    ("Service", "spec.type", "Cluster", "spec.type"),
    ("Service", "spec.clusterIP", "none", "spec.clusterIP"),
    ("Service", "spec.selector", {"a": "b c"}, "spec.selector.a"),
    ("Service", "spec.ports", [], "spec.ports"),
    ("Service", "spec.ports.0.port", 0, "spec.ports[0].port"),
    ("Service", "spec.ports.0.targetPort", 65536, "spec.ports[0].targetPort"),
    ("Service", "spec.ports.0.targetPort", "", "spec.ports[0].targetPort"),
    ("Service", "spec.ports.0.nodePort", 70000, "spec.ports[0].nodePort"),
    ("Service", "spec.ports.0.protocol", "HTTP", "spec.ports[0].protocol"),
    ("Service", "spec.ports.0.name", None, "spec.ports[0].name"),
    ("Service", "spec.ports.1.name", "http", "spec.ports[1].name"),
    ("Service", "spec.ports.2", {"name": "again", "port": 80}, "spec.ports[2].port"),
    ("ConfigMap", "data", {"a/b": "x"}, "data[a/b]"),
    ("ConfigMap", "data", {"..": "x"}, "data[..]"),
    ("ConfigMap", "data", {"b": "x"}, "binaryData.b"),
    ("ConfigMap", "data", {"a": "x" * (1 << 20) + "x"}, "data"),
    ("ConfigMap", "binaryData", {"b": "?"}, "binaryData.b"),
    ("Secret", "data.token", "not base64", "data.token"),
    ("Deployment", "spec.replicas", -1, "spec.replicas"),
    ("Deployment", "spec.selector", {}, "spec.selector"),
    ("Deployment", "spec.selector.matchLabels", {"app": "other"}, "spec.template.metadata.labels"),
    ("Deployment", "spec.selector.matchExpressions.0.operator", "Is", "spec.selector.matchExpressions[0].operator"),
    ("Deployment", "spec.selector.matchExpressions.0.values", ["a"], "spec.selector.matchExpressions[0].values"),
    ("Deployment", "spec.template.metadata.labels.v", "a b", "spec.template.metadata.labels.v"),
    ("Deployment", "spec.template.spec.restartPolicy", "Never", "spec.template.spec.restartPolicy"),
    ("Deployment", "spec.template.spec.containers.0.name", "", "spec.template.spec.containers[0].name"),
    ("StatefulSet", "spec.serviceName", "a.b", "spec.serviceName"),
    ("StatefulSet", "spec.template.metadata", {}, "spec.template.metadata.labels"),
    ("DaemonSet", "spec.selector", {}, "spec.selector"),
    ("ReplicationController", "spec.selector", {"app": "x"}, "spec.template.metadata.labels"),
    ("ReplicationController", "spec.replicas", -1, "spec.replicas"),
    ("Job", "spec.template.spec.restartPolicy", "Always", "spec.template.spec.restartPolicy"),
    ("Job", "spec.parallelism", -1, "spec.parallelism"),
    ("TrafficTarget", "spec.destination.port", 0, "spec.destination.port"),
    ("TrafficTarget", "spec.destination.name", "", "spec.destination.name"),
    ("TrafficTarget", "spec.sources.0.namespace", "A", "spec.sources[0].namespace"),
    ("TrafficTarget", "spec.rules.0.name", "", "spec.rules[0].name"),
    ("TrafficTarget", "spec.rules.1.matches", ["a"], "spec.rules[1].matches"),
    ("HTTPRouteGroup", "spec.matches.0.name", "", "spec.matches[0].name"),
    ("HTTPRouteGroup", "spec.matches.1.name", "get", "spec.matches[1].name"),
    ("HTTPRouteGroup", "spec.matches.0.pathRegex", "/(a", "spec.matches[0].pathRegex"),
    ("HTTPRouteGroup", "spec.matches.0.pathRegex", "[a", "spec.matches[0].pathRegex"),
    ("HTTPRouteGroup", "spec.matches.0.pathRegex", "(" * 4000 + ")" * 4000, "spec.matches[0].pathRegex"),
    ("HTTPRouteGroup", "spec.matches.0.pathRegex", "(?<=a*)b", "spec.matches[0].pathRegex"),
    ("HTTPRouteGroup", "spec.matches.0.headers", {"X-A": "*a"}, "spec.matches[0].headers.X-A"),
    ("HTTPRouteGroup", "spec.matches.0.headers", {"X A": "a"}, "spec.matches[0].headers[X A]"),
    ("HTTPRouteGroup", "spec.matches.0.headers", {"X-A": "a", "x-a": "b"}, "spec.matches[0].headers.x-a"),
    ("HTTPRouteGroup", "spec.matches.0.methods", ["GET /"], "spec.matches[0].methods[0]"),
    ("TrafficSplit", "spec.backends", [], "spec.backends"),
    ("TrafficSplit", "spec.backends.0.weight", -1, "spec.backends[0].weight"),
    ("TrafficSplit", "spec.backends.0.weight", 2**31 + 1, "spec.backends[0].weight"),
    ("TrafficSplit", "spec.backends.1.service", "web-v1", "spec.backends[1].service"),
    ("TrafficSplit", "spec.service", "a/b", "spec.service"),
    ("TrafficSplit", "spec.matches.0.apiGroup", "x", "spec.matches[0].apiGroup"),
    ("RateLimit", "spec.rate", "10", "spec.rate"),
    ("RateLimit", "spec.burst", -1, "spec.burst"),
    ("RateLimit", "spec.burst", 2**31, "spec.burst"),
    ("RateLimit", "spec.delay", "later", "spec.delay"),
    ("RateLimit", "spec.delay", 2**31, "spec.delay"),
    ("RateLimit", "spec.name", "", "spec.name"),
    ("RateLimit", "spec.destination.name", "A", "spec.destination.name"),
    ("RateLimit", "spec.sources.1.namespace", "shop", "spec.sources[1]"),
    ("RateLimit", "spec.rules", [{"kind": "HTTPRouteGroup", "name": ""}], "spec.rules[0].name"),
    ("CircuitBreaker", "spec.errors", 0, "spec.errors"),
    ("CircuitBreaker", "spec.errors", 10_001, "spec.errors"),
    ("CircuitBreaker", "spec.timeoutSeconds", 0, "spec.timeoutSeconds"),
    ("CircuitBreaker", "spec.timeoutSeconds", 2**31 // 1000 + 1, "spec.timeoutSeconds"),
    ("CircuitBreaker", "spec.destination.name", "", "spec.destination.name"),
    ("CircuitBreaker", "spec.fallback.service", "a/b/c", "spec.fallback.service"),
    ("CircuitBreaker", "spec.fallback.port", 0, "spec.fallback.port"),
    ("MeshConfig", "spec.mtls.svidTTL", "5s", "spec.mtls.svidTTL"),
    ("MeshConfig", "spec.meshConfigClassName", "", "spec.meshConfigClassName"),
    ("MeshConfigClass", "spec.controllerName", "", "spec.controllerName"),
]


@pytest.mark.parametrize(
    ("kind", "path", "value", "field"), CASES, ids=[f"{kind}-{field}" for kind, _, _, field in CASES]
)
def test_one_wrong_field_is_one_error_that_names_it(kind: str, path: str, value: Any, field: str) -> None:
    found = errors(kind, changed(SOUND[kind], path, value))
    assert list(found) == [field]
    assert found[field]


def test_pods_prove_their_own_identities_and_not_what_a_service_says() -> None:
    peer = {"config.nsm.nginx.com/peer-spiffe-id": "spiffe://other.example/a"}
    raw = {**SOUND["Service"], "metadata": {"name": "web", "namespace": "shop", "annotations": peer}}
    assert errors("Service", raw) == {}
    found = errors("Service", changed(raw, "spec.selector", {"app": "web"}))
    assert list(found) == ["metadata.annotations[config.nsm.nginx.com/peer-spiffe-id]"]
    assert "selector" in found["metadata.annotations[config.nsm.nginx.com/peer-spiffe-id]"]


def test_mounts_of_a_container_do_not_overlap() -> None:
    raw = {
        "spec": {
            **pod_spec(
                volumeMounts=[
                    {"name": "x", "mountPath": "/a"},
                    {"name": "x", "mountPath": "/a", "subPath": "../b"},
                    {"name": "x", "mountPath": "b"},
                ]
            ),
            "volumes": [{"name": "x", "emptyDir": {}}],
        }
    }
    assert list(errors("Pod", raw)) == [
        "spec.containers[0].volumeMounts[1].mountPath",
        "spec.containers[0].volumeMounts[1].subPath",
        "spec.containers[0].volumeMounts[2].mountPath",
    ]


def test_a_fallback_without_a_namespace_is_in_default() -> None:
    raw = changed(SOUND["CircuitBreaker"], "spec.fallback", {"service": "backup"})
    assert errors("CircuitBreaker", raw) == {}


@pytest.mark.parametrize(
    ("operator", "values", "labels", "selected"),
    [
        ("In", ["a", "b"], {"k": "a"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", [], {"k": ""}, True),
        ("Exists", [], {}, False),
        ("DoesNotExist", [], {"k": "a"}, False),
        ("DoesNotExist", [], {}, True),
    ],
)
def test_selectors_select_as_in_kubernetes(
    operator: str, values: list[str], labels: Mapping[str, str], selected: bool
) -> None:
    term = LabelSelectorRequirement(key="k", operator=operator, values=values)
    assert selector_matches(LabelSelector(match_expressions=[term]), labels) is selected
