"""Exports spans to a collector by OTLP over gRPC, in batches and in a thread that nobody waits for.

The queue is bounded, and so is the time that one batch may take. Spans that a collector does not take, because it is
slow, gone or faulty, are dropped and counted. Importing this module takes half a second, for gRPC and the SDK.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import Counter

from nginx_mesh.api.values import HostPort

log = logging.getLogger(__name__)
# This module logs once that a collector takes nothing; the libraries would log it for every batch.
for _talkative in ("opentelemetry", "grpc._common"):
    logging.getLogger(_talkative).setLevel(logging.CRITICAL + 1)

QUEUE = 4096
_BATCH = 512
_DELAY_MS = 1000.0
_TIMEOUT_SECONDS = 5

_exported = Counter("nginx_mesh_spans_exported_total", "Spans that the collector took.")
_dropped = Counter("nginx_mesh_spans_dropped_total", "Spans that no collector has got.", ["reason"])
_full = _dropped.labels("queue")
_refused = _dropped.labels("collector")

Resolve = Callable[[str], str | None]
"""An address for the name of a host, None when there is none. Called in the exporting thread."""


class SpanExport:
    """Exports spans to the collector `target`, which may change at any time; None drops them."""

    def __init__(self, resolve: Resolve) -> None:
        self._collector = _Collector(resolve)
        self._processor = BatchSpanProcessor(
            self._collector, max_queue_size=QUEUE, schedule_delay_millis=_DELAY_MS, max_export_batch_size=_BATCH
        )

    @property
    def target(self) -> HostPort | None:
        """The collector."""
        return self._collector.target

    @target.setter
    def target(self, target: HostPort | None) -> None:
        self._collector.direct(target)

    def add(self, span: ReadableSpan) -> None:
        """Queue a span, or drop it when the queue is full. Never blocks."""
        if self._collector.admit():
            self._processor.on_end(span)
        else:
            _full.inc()

    def close(self) -> None:
        """End the thread, within a second. Spans that are still on their way then are dropped."""
        self._collector.shutdown()
        self._processor.shutdown()  # type: ignore[no-untyped-call]


class _Collector(SpanExporter):
    """Sends batches to the present collector. `export` runs in the processor's thread alone."""

    def __init__(self, resolve: Resolve) -> None:
        self.target: HostPort | None = None
        self._resolve = resolve
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False
        self._healthy = True
        self._endpoint = ""
        self._exporter: OTLPSpanExporter | None = None

    def direct(self, target: HostPort | None) -> None:
        """Send to this collector from now on."""
        if target != self.target:
            self.target, self._healthy = target, True

    def admit(self) -> bool:
        """Whether one more span has room in the queue."""
        with self._lock:
            if self._waiting >= QUEUE:
                return False
            self._waiting += 1
            return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self._waiting -= len(spans)
        target = self.target
        taken = False
        try:
            taken = target is not None and not self._closed and self._send(target, spans)
        except Exception as error:  # a collector's answer may make the libraries raise anything
            log.debug("the collector %s: %r", target, error)
        (_exported if taken else _refused).inc(len(spans))
        if target is not None and taken != self._healthy and not self._closed:
            self._healthy = taken
            if taken:
                log.info("the collector %s takes spans again", target)
            else:
                log.warning("the collector %s takes no spans; they are dropped until it does", target)
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """End the batch that is under way, and drop all later ones."""
        self._closed = True
        if self._exporter is not None:
            self._exporter.shutdown()

    def _send(self, target: HostPort, spans: Sequence[ReadableSpan]) -> bool:
        address = self._resolve(target.host)
        if address is None:
            return False
        endpoint = f"http://{HostPort(address, target.port)}"
        if self._exporter is None or endpoint != self._endpoint:
            if self._exporter is not None:
                self._exporter.shutdown()
            self._exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=_TIMEOUT_SECONDS)
            self._endpoint = endpoint
        return self._exporter.export(spans) is SpanExportResult.SUCCESS
