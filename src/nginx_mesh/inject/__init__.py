"""Injection: adds the sidecar to pods. Pure functions on plain objects, so that no field of a manifest is lost."""

from __future__ import annotations

from .document import DocumentResult, Outcome, inject_document
from .pod import InjectResult, inject_pod
from .probes import ProbeRedirect, probe_entries, probes
from .settings import InjectSettings

__all__ = [
    "DocumentResult",
    "InjectResult",
    "InjectSettings",
    "Outcome",
    "ProbeRedirect",
    "inject_document",
    "inject_pod",
    "probe_entries",
    "probes",
]
