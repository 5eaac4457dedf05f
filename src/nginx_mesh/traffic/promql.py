"""Flows by PromQL: makes the query for a question, and reads flows from the response.

The increase of a counter within the window is its newest value less its value one window ago. This gives whole numbers,
which PromQL's `increase` does not. A counter that did not exist one window ago, or that has become less since, began at
0 in between. This holds only if Prometheus scraped the sidecar already one window ago, or if the sidecar started within
the window. Otherwise the increase is counted from the first scrape on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

from nginx_mesh.traffic.measure import TrafficQuery

from .exposition import LATENCY, RESPONSES, Series
from .flows import Flow, flows

# By the value of the label `counter`, which tells the rows of the two apart: the metric, and the label that rows keep.
_COUNTERS = {"responses": (RESPONSES, "code"), "latency": (LATENCY, "le")}
_COUNTER = "counter"
_SIDECARS = "sidecars"
# The names that Kubernetes allows. Label values that are no such names do not come from our control plane.
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")

Row = tuple[Mapping[str, str], float]
"""Labels and value of one element of an instant vector."""


def quoted(text: str) -> str:
    """A string literal of PromQL."""
    return json.dumps(text, ensure_ascii=False)


def can_exist(question: TrafficQuery) -> bool:
    """Whether resources with these names can exist."""
    return all(not part or _NAME.fullmatch(part) for part in (question.namespace, question.name))


def query(question: TrafficQuery, window: float) -> str:
    """An instant query for the flows that a question is about. `window` is seconds."""
    labels = list(dict.fromkeys(["namespace", question.kind.label, *(kind.label for kind in question.peers)]))
    ends = [*labels, *(f"dst_{label}" for label in labels)]
    selectors = [_selector(question, prefix) for prefix in ("", "dst_")]
    parts = []
    for counter, (name, within) in _COUNTERS.items():
        added = " or ".join(_added(name + selector, f"{window:g}s") for selector in selectors)
        parts.append(_with_counter_label(f"sum by ({', '.join([*ends, within])}) ({added})", counter))
    parts.append(_with_counter_label("count(nginxplus_state_version)", _SIDECARS))
    return "\nor ".join(parts)


def read(rows: Iterable[Row]) -> list[Flow] | None:
    """The flows of a response; None when Prometheus has no metrics of any sidecar. Raises ValueError for other rows.

    Flows without a request are left out, and so are rows with a label value that Kubernetes does not allow as a name.
    """
    known, increases = False, list[tuple[Series, float]]()
    for row, value in rows:
        labels = dict(row)
        counter = labels.pop(_COUNTER, "")
        if not 0 <= value < math.inf:
            raise ValueError(f"a count of {value}")
        if counter == _SIDECARS:
            known = known or value > 0
            continue
        if counter not in _COUNTERS:
            raise ValueError("a row that was not asked for")
        name, within = _COUNTERS[counter]
        kept = labels.pop(within, "")
        if within == "le":
            float(kept)
        if all(map(_NAME.fullmatch, labels.values())):
            increases.append(((name, (*sorted(labels.items()), (within, kept))), value))
    if not known:
        return None
    return [flow for flow in flows(increases) if flow.counts.success + flow.counts.failure > 0]


def _selector(question: TrafficQuery, prefix: str) -> str:
    """The selector for series whose end with this label prefix is what the question is about."""
    matchers = []
    if question.namespace:
        matchers.append(f"{prefix}namespace={quoted(question.namespace)}")
    matchers.append(
        f"{prefix}{question.kind.label}={quoted(question.name)}"
        if question.name
        else f'{prefix}{question.kind.label}!=""'
    )
    return "{" + ",".join(matchers) + "}"


def _added(counter: str, window: str) -> str:
    began = f"(up offset {window} == 1 or process_start_time_seconds > time() - {window.removesuffix('s')})"
    since_seen = f"{counter} - min_over_time({counter}[{window}])"
    return f"({counter} - {counter} offset {window} >= 0 or {counter} and on (job, instance) {began} or {since_seen})"


def _with_counter_label(expression: str, counter: str) -> str:
    return f'label_replace({expression}, "{_COUNTER}", "{counter}", "", "")'
