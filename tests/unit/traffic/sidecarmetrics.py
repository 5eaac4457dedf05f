"""The metrics of a sidecar, in the text format that it exposes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from nginx_mesh.traffic.exposition import BREAKER, CONNECTIONS, LATENCY, MTLS, MTLS_CONNECTIONS, RESPONSES

_STATES = {"closed": 0, "open": 1, "half_open": 2}


class SidecarMetrics:
    """Counts what a caller's sidecar counts. `started` is seconds since the epoch, `labels` are those of its pod."""

    def __init__(self, started: float | None = None, **labels: str) -> None:
        self._started = started
        self._labels = labels
        self._values: Counter[str] = Counter()

    def requests(self, count: int, server: Mapping[str, str], code: str = "2xx", *, mtls: bool = True) -> None:
        """Count requests to a server pod with these labels, each of which took less than 10 ms."""
        self._add(RESPONSES, count, server, code=code)
        self._add(LATENCY, count, server, code=code, le="10")
        self._add(LATENCY, count, server, code=code, le="+Inf")
        if mtls:
            self._add(MTLS, count, server)

    def connections(self, count: int, server: Mapping[str, str]) -> None:
        """Count TCP connections, by mTLS, to a server pod with these labels."""
        self._add(CONNECTIONS, count, server)
        self._add(MTLS_CONNECTIONS, count, server)

    def circuit(self, breaker: str, upstream: str, state: str) -> None:
        """Set the state of a circuit: closed, open or half_open."""
        self._values[_series(BREAKER, {**self._labels, "breaker": breaker, "upstream": upstream})] = _STATES[state]

    def text(self) -> str:
        """The exposition."""
        lines = [f"# TYPE {RESPONSES} counter", *(f"{series} {value}" for series, value in self._values.items())]
        if self._started is not None:
            lines += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {self._started}"]
        return "\n".join([*lines, ""])

    def _add(self, name: str, count: int, server: Mapping[str, str], **more: str) -> None:
        labels = {**self._labels, **{f"dst_{label}": value for label, value in server.items()}, **more}
        self._values[_series(name, labels)] += count


def _series(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}"
