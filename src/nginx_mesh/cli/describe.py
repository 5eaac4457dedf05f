"""`describe`: one object in words, with what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nginx_mesh.api.conditions import is_ready

from .table import Resource, age, instant, left, pod_phase, render

# Fields that the head of the description shows already, or that readers do not need.
_HIDDEN_METADATA = {
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "managedFields",
}
# What is in these has names that users chose.
_USER_NAMED = {"data", "binaryData", "selector", "matchLabels", "labels", "annotations", "headers"}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def describe(
    resource: Resource,
    events: list[Resource],
    *,
    now: float,
    endpoints: list[str] | None = None,
    identity: Resource | None = None,
) -> str:
    """The text for one object; `now` is seconds since the epoch.

    `endpoints` are the addresses behind a Service, `identity` is what a Pod's agent holds for it.
    """
    metadata = resource["metadata"]
    annotations = {name: value for name, value in metadata.get("annotations", {}).items() if name != _LAST_APPLIED}
    head: list[tuple[str, Any]] = [("Name", metadata["name"])]
    if metadata.get("namespace"):
        head.append(("Namespace", metadata["namespace"]))
    head += [("Labels", _pairs(metadata.get("labels"))), ("Annotations", _pairs(annotations))]
    if resource["kind"] == "Pod":
        head += _pod_head(resource)
    if endpoints is not None:
        head.append(("Endpoints", ",".join(endpoints) or "<none>"))
    width = max(len(title) for title, _ in head) + 2
    lines = [line for title, value in head for line in _headline(title, value, width)]
    rest: Resource = {"metadata": {k: v for k, v in metadata.items() if k not in _HIDDEN_METADATA}}
    rest |= {name: value for name, value in resource.items() if name not in ("apiVersion", "kind", "metadata")}
    if resource["kind"] == "Secret":
        rest["data"] = {name: f"{_decoded_size(value)} bytes" for name, value in resource.get("data", {}).items()}
        rest.pop("stringData", None)
    lines += _dump(rest, "")
    if identity is not None:
        lines += _identity_lines(identity, now)
    lines += _event_lines(events, now)
    return "\n".join(lines)


def _pod_head(pod: Resource) -> list[tuple[str, Any]]:
    status = pod.get("status", {})
    owner = next(iter(pod["metadata"].get("ownerReferences", [])), None)
    head: list[tuple[str, Any]] = [
        ("Service Account", pod["spec"].get("serviceAccountName") or "default"),
        ("Status", pod_phase(pod)),
        ("Ready", str(is_ready(pod))),
        ("IPs", ", ".join(entry["ip"] for entry in status.get("podIPs", [])) or "<none>"),
    ]
    if owner is not None:
        head.append(("Controlled By", f"{owner['kind']}/{owner['name']}"))
    return head


def _identity_lines(identity: Resource, now: float) -> list[str]:
    names = ", ".join(identity["dns_names"]) or "<none>"
    rows = [("SPIFFE ID", identity["spiffe_id"]), ("DNS Names", names)]
    if identity["serial"]:
        rows += [
            ("Serial", identity["serial"]),
            ("Issuer", identity["issuer"]),
            ("Not Before", instant(identity["not_before"])),
            ("Not After", f"{instant(identity['not_after'])} (in {left(identity['not_after'], now)})"),
            ("Renewed At", f"{instant(identity['renew_at'])} (in {left(identity['renew_at'], now)})"),
            ("Bundle", ", ".join(identity["bundle"])),
        ]
    else:
        rows.append(("SVID", "<pending>"))
    return ["Identity:", *(f"  {title + ':':<12} {value}" for title, value in rows)]


def _headline(title: str, value: Any, width: int) -> Iterator[str]:
    values = value if isinstance(value, list) else [value]
    yield f"{title + ':':<{width}}{values[0]}".rstrip()
    for more in values[1:]:
        yield " " * width + str(more)


def _pairs(values: dict[str, str] | None) -> list[str]:
    return [f"{name}={value}" for name, value in sorted((values or {}).items())] or ["<none>"]


def _decoded_size(value: str) -> int:
    return len(value) * 3 // 4 - value.count("=")


def _dump(value: Any, indent: str, *, titled: bool = True) -> Iterator[str]:
    """Nested fields, titled as kubectl titles those of resources that it does not know."""
    for name, content in value.items():
        title = _title(name) if titled else name
        if isinstance(content, dict) and content:
            yield f"{indent}{title}:"
            yield from _dump(content, indent + "  ", titled=name not in _USER_NAMED)
        elif isinstance(content, list) and content and isinstance(content[0], dict):
            yield f"{indent}{title}:"
            for entry in content:
                lines = list(_dump(entry, indent + "    "))
                yield f"{indent}  - {lines[0].lstrip()}" if lines else f"{indent}  - {{}}"
                yield from lines[1:]
        elif content not in ({}, [], "", None):
            text = ", ".join(map(str, content)) if isinstance(content, list) else str(content)
            lines = text.rstrip("\n").split("\n")
            if len(lines) == 1:
                yield f"{indent}{title}:  {text}"
            else:
                yield f"{indent}{title}:"
                yield from (f"{indent}  {line}" for line in lines)


def _title(name: str) -> str:
    """`targetPort` as "Target Port"."""
    words = "".join(f" {c}" if c.isupper() and not name[i - 1].isupper() else c for i, c in enumerate(name))
    return words[0].upper() + words[1:]


def _event_lines(events: list[Resource], now: float) -> list[str]:
    if not events:
        return ["Events:  <none>"]
    rows = [["  Type", "Reason", "Age", "Message"], ["  ----", "------", "---", "-------"]]
    for event in events:
        seen = age(event["lastTimestamp"], now)
        if event["count"] > 1:
            seen = f"{seen} (x{event['count']} over {age(event['firstTimestamp'], now)})"
        rows.append([f"  {event['type']}", event["reason"], seen, event["message"]])
    return ["Events:", render(rows)]
