"""Reading a sidecar's `/metrics` (the Prometheus text format, version 0.0.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

RESPONSES = "nginxplus_upstream_server_responses"
LATENCY = "nginxplus_upstream_server_response_latency_ms_bucket"
MTLS = "nginxplus_upstream_server_mtls_requests"
CONNECTIONS = "nginxplus_stream_upstream_server_connections"
MTLS_CONNECTIONS = "nginxplus_stream_upstream_server_mtls_connections"
FAILED_CONNECTIONS = "nginxplus_stream_upstream_server_fails"
SENT = "nginxplus_stream_upstream_server_sent"
RECEIVED = "nginxplus_stream_upstream_server_received"
BREAKER = "nginxplus_circuit_breaker_state"
_COUNTERS = {RESPONSES, LATENCY, MTLS, CONNECTIONS, MTLS_CONNECTIONS, FAILED_CONNECTIONS, SENT, RECEIVED}
_STARTED = "process_start_time_seconds"

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name, and labels sorted by theirs."""


class ExpositionError(ValueError):
    """What is no text in the format."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """The counters that traffic metrics are made of (those named above), and when they were 0.

    `since` is seconds since the epoch, None when the sidecar does not say. `breakers` are the states of its circuits.
    """

    counters: Mapping[Series, float]
    since: float | None = None
    breakers: Mapping[Series, float] = field(default_factory=dict)


def read(text: str) -> Exposed:
    """Read an exposition. Raises ExpositionError."""
    counters: dict[Series, float] = {}
    breakers: dict[Series, float] = {}
    since: float | None = None
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                # The parser names every counter as OpenMetrics would.
                name = sample.name.removesuffix("_total")
                if name == BREAKER or name in _COUNTERS:
                    kept = breakers if name == BREAKER else counters
                    kept[name, tuple(sorted(sample.labels.items()))] = sample.value
                elif name == _STARTED:
                    since = sample.value
    except (ValueError, KeyError, IndexError) as error:  # the parser raises whatever the garbage makes it stumble over
        raise ExpositionError(str(error)) from None
    return Exposed(counters, since, breakers)
