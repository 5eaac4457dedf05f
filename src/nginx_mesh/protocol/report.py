"""What a sidecar reports of single requests to its node: one datagram of JSON each.

The C module writes them (report.c). A report is taken for what a hostile pod may say: its size is
bounded, and every field is checked.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_BYTES = 8192
"""A longer datagram is no report."""

Text = Annotated[str, msgspec.Meta(max_length=1536)]
Name = Annotated[str, msgspec.Meta(max_length=512)]
Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]
Microseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
TraceId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
SpanId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$", max_length=16)]


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that a sidecar sent (`server` 0) or took in (1), as the sidecar's C module tells it.

    `tapped` says that somebody watches. Only one that is in a sampled trace has `trace` and `span`; `parent` is
    empty at a trace's root. Times are microseconds, `start_us` since the epoch. `path` has no query. `client` is the
    caller's address, `destination` what was dialled, `upstream` the last endpoint tried ("ip:port"); `peer_id` the
    SPIFFE ID that the other side proved. `policy` is the TrafficTarget that allowed it, `limited_by` the RateLimit that
    refused or delayed it, `reason` why the sidecar refused it.
    """

    server: Flag
    tapped: Flag
    start_us: Microseconds
    duration_us: Microseconds
    status: Annotated[int, msgspec.Meta(ge=0, le=999)]
    http2: Flag
    mtls: Flag
    tries: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    client_port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    trace: TraceId | None = None
    span: SpanId | None = None
    parent: SpanId | None = None
    grpc: Flag = 0
    grpc_status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    method: Name = ""
    path: Text = ""
    authority: Name = ""
    user_agent: Name = ""
    client: Name = ""
    destination: Name = ""
    upstream: Name = ""
    peer_id: Name = ""
    cluster: Name = ""
    policy: Name = ""
    limited_by: Name = ""
    reason: Name = ""


class ReportError(Exception):
    """What came is no report."""


_decoder = msgspec.json.Decoder(Report)


def read(datagram: bytes) -> Report:
    """Raises ReportError."""
    if len(datagram) > MAX_BYTES:
        raise ReportError(f"more than {MAX_BYTES} bytes")
    try:
        report = _decoder.decode(datagram)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(str(error)) from None
    if (report.trace is None) != (report.span is None):
        raise ReportError("a trace without a span, or a span without a trace")
    if report.trace is not None and (not int(report.trace, 16) or not int(report.span or "0", 16)):
        raise ReportError("an id is zero")
    return report
