"""Tables of objects the way `kubectl get` prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from nginx_mesh.api.conditions import IN_FORCE, find_condition

Resource = dict[str, Any]
Column = tuple[str, Callable[[Resource, float], str]]


def render(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of which is the header, as left-aligned columns three spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def table(
    kind: str,
    resources: Iterable[Resource],
    *,
    now: float,
    wide: bool = False,
    with_namespace: bool = False,
    prefix: str = "",
) -> str:
    """Objects of one kind as a table; `now` is seconds since the epoch, `prefix` goes before every name."""
    columns = [*_COLUMNS.get(kind, [_AGE]), *(_WIDE.get(kind, []) if wide else [])]
    if kind not in _NAMELESS:
        columns.insert(0, ("NAME", lambda resource, _: prefix + str(resource["metadata"]["name"])))
    if with_namespace:
        columns.insert(0, ("NAMESPACE", lambda resource, _: str(resource["metadata"].get("namespace", ""))))
    rows = [[title for title, _ in columns]]
    rows += [[cell(resource, now) for _, cell in columns] for resource in resources]
    return render(rows)


def whole(content: Any, output: str) -> str:
    """Everything, as `json` or `yaml`."""
    if output == "json":
        return json.dumps(content, indent=4, ensure_ascii=False) + "\n"
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(content, Dumper=dumper, default_flow_style=False, allow_unicode=True, sort_keys=True))


def duration(seconds: float) -> str:
    """A duration as kubectl prints ages: 45s, 3m12s, 5h, 12d."""
    total = max(0, int(seconds))
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{days}d"


def age(when: str, now: float) -> str:
    """How long ago an RFC 3339 time was."""
    if not when:
        return "<unknown>"
    return duration(now - datetime.fromisoformat(when).astimezone(UTC).timestamp())


def instant(seconds: float) -> str:
    """A time as RFC 3339, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def left(until: float, now: float) -> str:
    """How long it is until then."""
    return duration(until - now) if until > now else "expired"


def pod_phase(pod: Resource) -> str:
    """The STATUS column of a pod: what is most in its way, else its phase."""
    status = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    init = status.get("initContainerStatuses", [])
    for number, container in enumerate(init):
        state = container["state"]
        if state.get("terminated", {}).get("exitCode") == 0:
            continue
        if "running" in state and container.get("ready"):
            continue
        reason = _why(state)
        if reason and reason != "PodInitializing":
            return f"Init:{reason}"
        return f"Init:{number}/{len(init)}"
    for container in reversed(status.get("containerStatuses", [])):
        if reason := _why(container["state"]):
            return reason
    return str(status.get("reason") or status.get("phase", "Pending"))


def _why(state: Resource) -> str:
    """The reason why a container waits or has ended, if there is one."""
    return str((state.get("waiting") or state.get("terminated") or {}).get("reason", ""))


def _spec(*path: str, default: object = "") -> Callable[[Resource, float], str]:
    def read(resource: Resource, _: float) -> str:
        value: Any = resource
        for part in path:
            value = value.get(part, {}) if isinstance(value, dict) else {}
        return str(default if value == {} else value)

    return read


def _pod_ready(pod: Resource, _: float) -> str:
    containers = pod.get("status", {}).get("containerStatuses", [])
    return f"{sum(c.get('ready', False) for c in containers)}/{len(pod['spec']['containers'])}"


def _restarts(pod: Resource, _: float) -> str:
    return str(sum(c.get("restartCount", 0) for c in pod.get("status", {}).get("containerStatuses", [])))


def _replicas(workload: Resource, _: float) -> str:
    return f"{workload.get('status', {}).get('readyReplicas', 0)}/{workload['spec'].get('replicas', 1)}"


def _ports(service: Resource, _: float) -> str:
    ports = service["spec"].get("ports", [])
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _slice_ports(slice_: Resource, _: float) -> str:
    return ",".join(str(port.get("port", "")) for port in slice_.get("ports", [])) or "<unset>"


def _slice_addresses(slice_: Resource, _: float) -> str:
    addresses = [address for endpoint in slice_.get("endpoints", []) for address in endpoint.get("addresses", [])]
    more = f" + {len(addresses) - 3} more..." if len(addresses) > 3 else ""
    return ",".join(addresses[:3]) + more if addresses else "<unset>"


def _labels(labels: dict[str, str] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items())) or "<none>"


def _selector(resource: Resource, _: float) -> str:
    selector = resource["spec"].get("selector", {})
    return _labels(selector.get("matchLabels", {}) if resource["kind"] != "Service" else selector)


def _containers(field: str) -> Callable[[Resource, float], str]:
    return lambda workload, _: ",".join(c.get(field, "") for c in workload["spec"]["template"]["spec"]["containers"])


def _keys(resource: Resource, _: float) -> str:
    return str(len(resource.get("data", {})) + len(resource.get("binaryData", {})))


def _job_status(job: Resource, _: float) -> str:
    conditions = job.get("status", {}).get("conditions", [])
    return str(conditions[-1]["type"]) if conditions else "Running"


def _job_duration(job: Resource, now: float) -> str:
    status = job.get("status", {})
    if "startTime" not in status:
        return ""
    end = datetime.fromisoformat(status["completionTime"]).timestamp() if "completionTime" in status else now
    return age(status["startTime"], end)


def _split_backends(split: Resource, _: float) -> str:
    return ",".join(f"{b['service']}={b['weight']}" for b in split["spec"].get("backends", []))


def _in_force(policy: Resource, _: float) -> str:
    """Whether a policy is in force: True, or why not."""
    found = find_condition(policy.get("status", {}), IN_FORCE)
    return str(found.get("reason" if found.get("status") == "False" else "status", "Unknown"))


def _updated_sidecars(policy: Resource, _: float) -> str:
    status = policy.get("status", {})
    return f"{status.get('updatedSidecars', 0)}/{status.get('sidecars', 0)}"


def _named(policy: Resource, reference: Resource) -> str:
    """The name in a reference, with the namespace where that is not the policy's own."""
    namespace = reference.get("namespace")
    foreign = f"{namespace}/" if namespace and namespace != policy["metadata"].get("namespace") else ""
    return f"{foreign}{reference['name']}"


def _destination(policy: Resource, _: float) -> str:
    destination = policy["spec"]["destination"]
    return f"{destination['kind'].lower()}/{_named(policy, destination)}"


def _target_destination(target: Resource, _: float) -> str:
    """A service account, and the port where a TrafficTarget is about one only."""
    destination = target["spec"]["destination"]
    port = destination.get("port")
    return _named(target, destination) + (f":{port}" if port else "")


def _target_sources(target: Resource, _: float) -> str:
    return ",".join(_named(target, source) for source in target["spec"].get("sources", [])) or "<none>"


def _limit_sources(limit: Resource, _: float) -> str:
    sources = limit["spec"].get("sources", [])
    return ",".join(f"{source['kind'].lower()}/{_named(limit, source)}" for source in sources) or "<all>"


def _rules(field: str) -> Callable[[Resource, float], str]:
    """What a policy says of requests: the names of route groups, with those of the matches that it chose."""

    def read(policy: Resource, _: float) -> str:
        rules = policy["spec"].get(field, [])
        return ",".join(":".join([rule["name"], *rule.get("matches", [])]) for rule in rules) or "<all>"

    return read


def _fallback(breaker: Resource, _: float) -> str:
    fallback = breaker["spec"].get("fallback")
    return f"{fallback['service']}:{fallback.get('port', 80)}" if fallback else "<none>"


def _event_object(event: Resource, _: float) -> str:
    involved = event["involvedObject"]
    return f"{involved['kind'].lower()}/{involved['name']}"


_AGE: Column = ("AGE", lambda resource, now: age(resource["metadata"].get("creationTimestamp", ""), now))
_FORCE: list[Column] = [("IN FORCE", _in_force), ("SIDECARS", _updated_sidecars)]
# Tables without a NAME column.
_NAMELESS = {"Event"}
_COLUMNS: dict[str, list[Column]] = {
    "Pod": [
        ("READY", _pod_ready),
        ("STATUS", lambda pod, _: pod_phase(pod)),
        ("RESTARTS", _restarts),
        _AGE,
    ],
    "Deployment": [
        ("READY", _replicas),
        ("UP-TO-DATE", _spec("status", "updatedReplicas", default=0)),
        ("AVAILABLE", _spec("status", "availableReplicas", default=0)),
        _AGE,
    ],
    "ReplicaSet": [
        ("DESIRED", _spec("spec", "replicas", default=1)),
        ("CURRENT", _spec("status", "replicas", default=0)),
        ("READY", _spec("status", "readyReplicas", default=0)),
        _AGE,
    ],
    "StatefulSet": [("READY", _replicas), _AGE],
    "DaemonSet": [
        ("DESIRED", _spec("status", "desiredNumberScheduled", default=0)),
        ("CURRENT", _spec("status", "currentNumberScheduled", default=0)),
        ("READY", _spec("status", "numberReady", default=0)),
        ("UP-TO-DATE", _spec("status", "updatedNumberScheduled", default=0)),
        ("AVAILABLE", _spec("status", "numberAvailable", default=0)),
        _AGE,
    ],
    "Job": [
        ("STATUS", _job_status),
        (
            "COMPLETIONS",
            lambda job, _: f"{job.get('status', {}).get('succeeded', 0)}/{job['spec'].get('completions', 1)}",
        ),
        ("DURATION", _job_duration),
        _AGE,
    ],
    "Service": [
        ("TYPE", _spec("spec", "type", default="ClusterIP")),
        ("CLUSTER-IP", _spec("spec", "clusterIP", default="<none>")),
        ("EXTERNAL-IP", lambda _service, _: "<none>"),
        ("PORT(S)", _ports),
        _AGE,
    ],
    "EndpointSlice": [
        ("ADDRESSTYPE", _spec("addressType")),
        ("PORTS", _slice_ports),
        ("ENDPOINTS", _slice_addresses),
        _AGE,
    ],
    "ConfigMap": [("DATA", _keys), _AGE],
    "Secret": [("TYPE", _spec("type", default="Opaque")), ("DATA", _keys), _AGE],
    "Namespace": [("STATUS", _spec("status", "phase", default="Active")), _AGE],
    "Event": [
        ("LAST SEEN", lambda event, now: age(event["lastTimestamp"], now)),
        ("TYPE", _spec("type")),
        ("REASON", _spec("reason")),
        ("OBJECT", _event_object),
        ("MESSAGE", _spec("message")),
    ],
    "TrafficSplit": [("SERVICE", _spec("spec", "service")), ("BACKENDS", _split_backends), *_FORCE, _AGE],
    "TrafficTarget": [("DESTINATION", _target_destination), *_FORCE, _AGE],
    "HTTPRouteGroup": [*_FORCE, _AGE],
    "TCPRoute": [*_FORCE, _AGE],
    "CircuitBreaker": [
        ("DESTINATION", _destination),
        ("ERRORS", _spec("spec", "errors")),
        ("TIMEOUT", lambda breaker, _: f"{breaker['spec']['timeoutSeconds']}s"),
        *_FORCE,
        _AGE,
    ],
    "RateLimit": [
        ("DESTINATION", _destination),
        ("RATE", _spec("spec", "rate")),
        *_FORCE,
        _AGE,
    ],
    "MeshConfig": [
        ("MTLS", _spec("spec", "mtls", "mode")),
        ("ACCESS", _spec("spec", "accessControlMode")),
        ("LB METHOD", _spec("spec", "nginxLBMethod")),
        _AGE,
    ],
}
_COLUMNS["ReplicationController"] = _COLUMNS["ReplicaSet"]
_WORKLOAD_WIDE: list[Column] = [
    ("CONTAINERS", _containers("name")),
    ("IMAGES", _containers("image")),
    ("SELECTOR", _selector),
]
_WIDE: dict[str, list[Column]] = {
    "Pod": [("IP", _spec("status", "podIP", default="<none>")), ("NODE", _spec("spec", "nodeName", default="<none>"))],
    "Deployment": _WORKLOAD_WIDE,
    "StatefulSet": _WORKLOAD_WIDE[:2],
    "DaemonSet": _WORKLOAD_WIDE,
    "Service": [("SELECTOR", _selector)],
    "TrafficTarget": [("SOURCES", _target_sources), ("RULES", _rules("rules"))],
    "TrafficSplit": [("MATCHES", _rules("matches"))],
    "RateLimit": [
        ("BURST", _spec("spec", "burst", default=0)),
        ("DELAY", _spec("spec", "delay", default=0)),
        ("SOURCES", _limit_sources),
        ("RULES", _rules("rules")),
    ],
    "CircuitBreaker": [("FALLBACK", _fallback)],
}
