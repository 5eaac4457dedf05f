"""Flows: the requests from one workload to another within a window, as the callers' sidecars counted them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .exposition import LATENCY, MTLS, RESPONSES, Series

_DESTINATION = "dst_"
# The labels in which the series of one flow differ.
_WITHIN = ("code", "le", "server", "upstream")
# NGINX Service Mesh counts every response of another class as a failure.
_SUCCESSFUL = ("1xx", "2xx")
_REQUESTS = (RESPONSES, LATENCY, MTLS)

Ends = tuple[tuple[str, str], ...]
"""Labels and their values, sorted."""


@dataclass(slots=True)
class Counts:
    """Requests. `latency` is a cumulative histogram: requests by the upper bound of their latency in milliseconds.

    `mtls` are the requests that the caller's sidecar sent by mTLS, `unanswered` the failures (5xx) that may not have
    reached any server.
    """

    success: float = 0.0
    failure: float = 0.0
    latency: dict[float, float] = field(default_factory=dict)
    mtls: float = 0.0
    unanswered: float = 0.0

    def add(self, other: Counts) -> None:
        """Add the requests of another flow to these."""
        self.success += other.success
        self.failure += other.failure
        self.mtls += other.mtls
        self.unanswered += other.unanswered
        for bound, count in other.latency.items():
            self.latency[bound] = self.latency.get(bound, 0.0) + count

    def quantile(self, q: float) -> float | None:
        """The latency that a share `q` of requests stayed below, in milliseconds; None without requests.

        As in Prometheus' histogram_quantile, values within a bucket are interpolated linearly, and the highest finite
        bound stands for everything beyond it.
        """
        bounds = sorted(self.latency)
        total = self.latency.get(math.inf, 0.0)
        if total <= 0:
            return None
        rank, lower, below = q * total, 0.0, 0.0
        for bound in bounds:
            count = self.latency[bound]
            if count >= rank and bound != math.inf:
                inside = count - below
                return lower + (bound - lower) * ((rank - below) / inside if inside else 0.0)
            if bound != math.inf:
                lower, below = bound, count
        return lower


@dataclass(frozen=True, slots=True)
class Flow:
    """Labels of both ends by the same names: pod, namespace, service, deployment, statefulset, daemonset."""

    source: Mapping[str, str]
    destination: Mapping[str, str]
    counts: Counts


def flows(increases: Iterable[tuple[Series, float]]) -> list[Flow]:
    """The flows that these increases of counters are; other counters than those of requests are passed over."""
    found: dict[Ends, Flow] = {}
    for (name, labels), added in increases:
        if name not in _REQUESTS:
            continue
        ends = ends_of(labels)
        flow = found.get(ends)
        if flow is None:
            flow = found[ends] = Flow(*by_end(ends), Counts())
        _count(flow.counts, name, labels, added)
    return list(found.values())


def ends_of(labels: Ends) -> Ends:
    """The labels of a series that name its two ends."""
    return tuple((label, value) for label, value in labels if label not in _WITHIN)


def by_end(ends: Ends) -> tuple[dict[str, str], dict[str, str]]:
    """The labels of the source and of the destination, by the same names."""
    source = {label: value for label, value in ends if not label.startswith(_DESTINATION)}
    destination = {label.removeprefix(_DESTINATION): value for label, value in ends if label.startswith(_DESTINATION)}
    return source, destination


def _count(counts: Counts, name: str, labels: Ends, added: float) -> None:
    if name == RESPONSES:
        code = _value(labels, "code")
        if code in _SUCCESSFUL:
            counts.success += added
        else:
            counts.failure += added
            if code == "5xx":
                counts.unanswered += added
    elif name == MTLS:
        counts.mtls += added
    elif name == LATENCY:
        bound = float(_value(labels, "le"))
        counts.latency[bound] = counts.latency.get(bound, 0.0) + added


def _value(labels: Ends, name: str) -> str:
    return next((value for label, value in labels if label == name), "")
