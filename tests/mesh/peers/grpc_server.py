"""A gRPC server for tests, without generated code: messages are bytes, JSON where they say something.

It prints `{"name": …, "port": …}` when it listens. Methods of `test.Peer`:

| method | kind | does |
|---|---|---|
| Unary | unary | JSON: name, peer, the metadata it saw, size and SHA-256 of the message |
| Download | server streaming | `{"count", "size", "delay"}` asks for messages that begin with their index |
| Upload | client streaming | JSON: name, number of messages, bytes, SHA-256 of all |
| Chat | bidirectional | each message back as it comes |
| Sleep | unary | message is seconds as text; answers afterwards, `cancelled` counts the calls that ended before |
| Fail | unary | ends with INVALID_ARGUMENT, a message with non-ASCII letters and details in the trailers |

Each call ends with the trailers `x-served-by` (the name) and `x-messages` (how many messages came).
`grpc.health.v1.Health/Check` answers SERVING.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

MESSAGE_LIMIT = 64 * 1024 * 1024
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}

Context = grpc.aio.ServicerContext[bytes, bytes]


class Peer:
    """The service."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cancelled = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """Its methods, for a server."""
        return grpc.method_handlers_generic_handler(
            "test.Peer",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
                "Download": grpc.unary_stream_rpc_method_handler(self._download),
                "Upload": grpc.stream_unary_rpc_method_handler(self._upload),
                "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
                "Sleep": grpc.unary_unary_rpc_method_handler(self._sleep),
                "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            },
        )

    def _end(self, context: Context, messages: int, *more: tuple[str, str]) -> None:
        context.set_trailing_metadata((("x-served-by", self.name), ("x-messages", str(messages)), *more))

    async def _unary(self, message: bytes, context: Context) -> bytes:
        self._end(context, 1)
        return _encode(
            name=self.name,
            peer=context.peer(),
            metadata=[
                [key, value if isinstance(value, str) else value.hex()]
                for key, value in context.invocation_metadata() or ()
            ],
            size=len(message),
            sha256=hashlib.sha256(message).hexdigest(),
        )

    async def _download(self, message: bytes, context: Context) -> AsyncIterator[bytes]:
        wish = json.loads(message)
        for index in range(wish["count"]):
            if index:
                await asyncio.sleep(wish["delay"])
            yield index.to_bytes(4, "big").ljust(wish["size"], b"x")
        self._end(context, 1)

    async def _upload(self, messages: AsyncIterator[bytes], context: Context) -> bytes:
        number, size, digest = 0, 0, hashlib.sha256()
        async for message in messages:
            number += 1
            size += len(message)
            digest.update(message)
        self._end(context, number)
        return _encode(name=self.name, messages=number, size=size, sha256=digest.hexdigest())

    async def _chat(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        number = 0
        async for message in messages:
            number += 1
            yield message
        self._end(context, number)

    async def _sleep(self, message: bytes, context: Context) -> bytes:
        try:
            await asyncio.sleep(float(message))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self._end(context, 1)
        return _encode(name=self.name, cancelled=self.cancelled)

    async def _fail(self, message: bytes, context: Context) -> bytes:
        self._end(context, 1, ("x-detail", "as told"))
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "told to fail: ä ✓")
        raise AssertionError("abort raises")


async def _healthy(message: bytes, context: Context) -> bytes:
    return SERVING


def _encode(**document: Any) -> bytes:
    return json.dumps(document).encode()


async def main(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM, then for `linger` seconds more, and leave when the last call is through."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ]
    )
    health = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(_healthy)}
    )
    server.add_generic_rpc_handlers((Peer(arguments.name).handler(), health))
    port = server.add_insecure_port(f"{arguments.host}:{arguments.port}")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    print(json.dumps({"name": arguments.name, "port": port}), flush=True)
    await stop.wait()
    await asyncio.sleep(arguments.linger)
    await server.stop(grace=30)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="gRPC server for tests")
    result.add_argument("--host", default="[::]", help="address to listen on; every one by default")
    result.add_argument("--port", type=int, default=50051)
    result.add_argument("--name", default=os.environ.get("POD_NAME") or socket.gethostname())
    result.add_argument("--linger", type=float, default=0, help="seconds to go on serving after SIGTERM")
    return result


if __name__ == "__main__":
    asyncio.run(main(parser().parse_args()))
