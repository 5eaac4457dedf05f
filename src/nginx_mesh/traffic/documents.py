"""SMI Traffic Metrics v1alpha1 as JSON (github.com/servicemeshinterface/smi-spec, apis/traffic-metrics)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .flows import Counts
from .measure import KINDS, Measured, Reference

GROUP = "metrics.smi-spec.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
ROOT = f"/apis/{GROUP}"

_QUANTILES = (("p99_response_latency", 0.99), ("p90_response_latency", 0.9), ("p50_response_latency", 0.5))
_SUFFIXES = ("m", "", "k", "M", "G", "T", "P", "E")

Document = dict[str, Any]


def quantity(value: float) -> str:
    """A number as a Kubernetes quantity in its canonical form, to a thousandth: 2969m, 1500, 2k."""
    thousandths = round(value * 1000)
    if thousandths == 0:
        return "0"
    suffix = 0
    while thousandths % 1000 == 0 and suffix < len(_SUFFIXES) - 1:
        thousandths //= 1000
        suffix += 1
    return f"{thousandths}{_SUFFIXES[suffix]}"


def parse_quantity(text: str) -> float:
    """The number of a quantity, in the form that `quantity` writes."""
    number = text.rstrip("".join(_SUFFIXES))
    return float(number) * 1000.0 ** (_SUFFIXES.index(text[len(number) :]) - 1)


def metrics_list(
    measured: Iterable[Measured], resource: Reference, path: str, timestamp: str, window: float
) -> Document:
    """A TrafficMetricsList. `resource` is the requested one; empty parts of it are left out. `window` is seconds."""
    return {
        "kind": "TrafficMetricsList",
        "apiVersion": API_VERSION,
        "metadata": {"selfLink": path},
        "resource": _reference(resource),
        "items": [_item(each, path, timestamp, window) for each in measured],
    }


def group() -> Document:
    """The discovery document of the API group."""
    version = {"groupVersion": API_VERSION, "version": VERSION}
    return {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version}


def resource_list() -> Document:
    """The discovery document of the group's version."""
    resources = [
        {
            "name": name,
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": response,
            "verbs": verbs,
        }
        for kind in KINDS.values()
        for name, response, verbs in (
            (kind.plural, "TrafficMetrics", ["get", "list"]),
            (f"{kind.plural}/edges", "TrafficMetricsList", ["get"]),
        )
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources}


def _item(measured: Measured, path: str, timestamp: str, window: float) -> Document:
    resource = measured.resource
    metadata = (
        {"name": resource.name, "namespace": resource.namespace} if resource.namespace else {"name": resource.name}
    )
    return {
        "kind": "TrafficMetrics",
        "apiVersion": API_VERSION,
        "metadata": {**metadata, "selfLink": path, "creationTimestamp": timestamp},
        "timestamp": timestamp,
        "window": f"{window:g}s",
        "resource": _reference(resource),
        "edge": {
            "direction": measured.direction,
            "resource": None if measured.peer is None else _reference(measured.peer),
        },
        "metrics": _metrics(measured.counts),
    }


def _metrics(counts: Counts) -> Sequence[Document]:
    latencies = [
        {"name": name, "unit": "ms", "value": quantity(value)}
        for name, q in _QUANTILES
        if (value := counts.quantile(q)) is not None
    ]
    return [
        *latencies,
        {"name": "success_count", "value": quantity(round(counts.success))},
        {"name": "failure_count", "value": quantity(round(counts.failure))},
    ]


def _reference(resource: Reference) -> Document:
    named = {"kind": resource.kind, "namespace": resource.namespace, "name": resource.name}
    return {name: value for name, value in named.items() if value}
