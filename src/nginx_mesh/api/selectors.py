"""Label selectors, as workloads have them."""

from __future__ import annotations

from .meta import Model


class LabelSelectorRequirement(Model, frozen=True, kw_only=True):
    """One matchExpressions term."""

    key: str
    operator: str
    values: list[str] = []


class LabelSelector(Model, frozen=True, kw_only=True):
    """metav1.LabelSelector."""

    match_labels: dict[str, str] = {}
    match_expressions: list[LabelSelectorRequirement] = []
