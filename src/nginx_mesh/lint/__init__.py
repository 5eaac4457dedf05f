"""Finds mistakes in manifests without a mesh: pure functions from files to findings."""

from __future__ import annotations

from .linter import lint
from .rules import RULES, Finding, Rule, Severity

__all__ = ["RULES", "Finding", "Rule", "Severity", "lint"]
