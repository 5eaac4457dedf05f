"""A sidecar's own entries: its settings, its inbound ports and its health checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.protocol.state import Inbound, Probe, Settings, State

from .access import grants
from .effective import client_max_body_size, effective_mode
from .limits import limits

ProbeReader = Callable[[Mapping[str, str]], Mapping[str, Probe]]
"""Reads a pod's health checks, by path, from the annotation that injection wrote. Raises FieldError."""


def no_probes(annotations: Mapping[str, str]) -> Mapping[str, Probe]:
    """For pods whose health checks are not redirected."""
    return {}


def own_entries(catalog: Catalog, settings: MeshSettings, pod: PodRecord, probes: ProbeReader) -> State:
    """All entries that only one sidecar has, except its identity. Only declared ports have inbound entries.

    An invalid annotation of health checks is ignored.
    """
    state: State = {
        "settings": Settings(
            mtls_mode=effective_mode(settings, pod),
            trust_domain=settings.trust_domain,
            client_max_body_size=client_max_body_size(settings, pod),
            log_level=settings.error_log_level,
            log_format=settings.log_format,
            addresses=list(pod.addresses),
            labels=pod.metric_labels,
            sampler_ratio=None if settings.otlp is None else settings.sampler_ratio,
        )
    }
    limited = limits(catalog, settings, pod)
    for number, use in catalog.topology.ports_of(pod).items():
        if use.declared:
            state[f"inbound/{number}"] = Inbound(
                protocols=list(use.protocols),
                grants=grants(catalog, settings, pod, number, use.protocols),
                limits=[] if use.protocols == ("tcp",) else limited,
            )
    with suppress(FieldError):
        state.update({f"probe/{path}": probe for path, probe in probes(pod.annotations).items()})
    return state
