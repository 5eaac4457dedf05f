"""An OTLP gRPC collector for tests, good and bad: `otlp_collector.py [--port N]` listens on N and the ports above it.

| port | |
|---|---|
| N | takes spans, and prints each as a line of JSON |
| N+1 | takes the connection and the request, and never answers |
| N+2 | answers with errors, that of a moment ago with a wish to be asked again in a year |
| N+3 | answers with what is not OTLP |
| N+4 | speaks no HTTP/2 |
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Context = grpc.aio.ServicerContext[Any, Any]


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


async def take(request: bytes, _: Context) -> bytes:
    """Print every span."""
    for group in ExportTraceServiceRequest.FromString(request).resource_spans:
        resource = {entry.key: _value(entry.value) for entry in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                document = {
                    "resource": resource,
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": span.kind,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": span.status.code,
                    "attributes": {entry.key: _value(entry.value) for entry in span.attributes},
                }
                print(json.dumps(document), flush=True)
    return b""


async def hang(_: bytes, context: Context) -> bytes:
    """Answer never."""
    await asyncio.sleep(3600)
    return b""


async def fail(_: bytes, context: Context) -> bytes:
    """Be wrong about everything."""
    info = RetryInfo(retry_delay=Duration(seconds=86400 * 365)).SerializeToString()
    context.set_trailing_metadata((("google.rpc.retryinfo-bin", info),))
    await context.abort(grpc.StatusCode.UNAVAILABLE, "in a year")
    return b""


async def lie(_: bytes, context: Context) -> bytes:
    """Answer with bytes that are no message."""
    return b"\xff" * 100_000


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Something else than HTTP/2."""
    writer.write(b"220 mail.example.org ESMTP\r\n" * 1000)
    await writer.drain()
    await reader.read(1000)
    writer.close()


async def main(port: int) -> None:
    """Serve until killed."""
    servers = []  # one that nobody holds stops
    for number, method in enumerate((take, hang, fail, lie)):
        server = grpc.aio.server()
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(method)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        server.add_insecure_port(f"0.0.0.0:{port + number}")
        await server.start()
        servers.append(server)
    await asyncio.start_server(shout, "0.0.0.0", port + 4)
    print(json.dumps({"port": port}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=4317)
    asyncio.run(main(parser.parse_args().port))
