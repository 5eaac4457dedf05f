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
"""The name of a metric, and its labels sorted by name."""


class ExpositionError(ValueError):
    """A text is not in the format."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """The metrics of a sidecar that traffic metrics are made of: the counters named above, and circuit breakers.

    `started` is when all counters were 0, seconds since the epoch, None when the sidecar does not say. The values of
    `breakers` are the states of the circuits: 0 closed, 1 open, 2 half-open.
    """

    counters: Mapping[Series, float]
    started: float | None = None
    breakers: Mapping[Series, float] = field(default_factory=dict)


def read(text: str) -> Exposition:
    """Read an exposition. Raises ExpositionError."""
    counters: dict[Series, float] = {}
    breakers: dict[Series, float] = {}
    started: float | None = None
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                # The parser gives every counter the name that it has in OpenMetrics.
                name = sample.name.removesuffix("_total")
                if name == BREAKER or name in _COUNTERS:
                    kept = breakers if name == BREAKER else counters
                    kept[name, tuple(sorted(sample.labels.items()))] = sample.value
                elif name == _STARTED:
                    started = sample.value
    except (ValueError, KeyError, IndexError) as error:  # the parser raises any of these for a malformed text
        raise ExpositionError(str(error)) from None
    return Exposition(counters, started, breakers)
