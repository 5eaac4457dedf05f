"""Flows by PromQL: the query that a question needs, and the flows that its answer is.

What was added to a counter within the window is its newest value less the one of a window ago: whole numbers, which
`increase` does not give. A counter that was not there a window ago, or has become less since, began at 0 in between;
that is believed where Prometheus knew the sidecar already, or the sidecar itself is not older. Otherwise only what came
after Prometheus' first look counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

from .exposition import LATENCY, RESPONSES, Series
from .flows import Flow, flows
from .measure import Question

# By the value of the label that tells their rows apart: the name, and the label that is kept within a flow.
_COUNTERS = {"responses": (RESPONSES, "code"), "latency": (LATENCY, "le")}
_COUNTER = "counter"
_SIDECARS = "sidecars"
# What Kubernetes lets names consist of. Other values do not come from our control plane, and are not passed on.
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")

Row = tuple[Mapping[str, str], float]
"""Labels and value of one element of an instant vector."""


def quoted(text: str) -> str:
    """A string as PromQL writes it."""
    return json.dumps(text, ensure_ascii=False)


def can_exist(question: Question) -> bool:
    """Whether there can be what is asked about."""
    return all(not part or _NAME.fullmatch(part) for part in (question.namespace, question.name))


def query(question: Question, window: float) -> str:
    """One instant query for all that the question needs. `window` is seconds."""
    labels = list(dict.fromkeys(["namespace", question.kind.label, *(kind.label for kind in question.peers)]))
    ends = [*labels, *(f"dst_{label}" for label in labels)]
    selectors = [_selector(question, prefix) for prefix in ("", "dst_")]
    parts = []
    for counter, (name, within) in _COUNTERS.items():
        added = " or ".join(_added(name + selector, f"{window:g}s") for selector in selectors)
        parts.append(_marked(f"sum by ({', '.join([*ends, within])}) ({added})", counter))
    parts.append(_marked("count(nginxplus_state_version)", _SIDECARS))
    return "\nor ".join(parts)


def read(rows: Iterable[Row]) -> list[Flow] | None:
    """The flows of an answer; None when Prometheus has metrics of no sidecar. Raises ValueError for what is no answer.

    Flows without a request are left out, as are ends whose names are no names.
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


def _selector(question: Question, prefix: str) -> str:
    """What the end with this prefix has to be."""
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


def _marked(expression: str, counter: str) -> str:
    return f'label_replace({expression}, "{_COUNTER}", "{counter}", "", "")'
