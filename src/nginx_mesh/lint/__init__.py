"""What may be wrong with manifests, said before any mesh sees them: pure functions from files to findings."""

from __future__ import annotations

from .linter import lint
from .rules import RULES, Finding, Rule, Severity

__all__ = ["RULES", "Finding", "Rule", "Severity", "lint"]
