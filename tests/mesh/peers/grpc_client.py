"""A gRPC client for the methods of grpc_server.py: `grpc_client.py METHOD HOST:PORT [options]`.

METHOD is unary, download, upload, chat, deadline, cancel, fail or unknown. It prints one JSON document with the
result, the status code and the trailers. Exit code 1 with `{"error": …, "code": …}` when the call did not do what its
name says.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

MESSAGE_LIMIT = 64 * 1024 * 1024

Document = dict[str, Any]
Channel = grpc.aio.Channel
UnaryMethod = grpc.aio.UnaryUnaryMultiCallable


class UnexpectedError(Exception):
    """The server answered something else than it should."""


def _trailers(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}


async def unary(channel: Channel, options: argparse.Namespace) -> Document:
    """`count` calls, each with metadata and a message of `size` bytes; the answer to the last one, and who answered."""
    message = b"x" * options.size
    method: UnaryMethod[bytes, bytes] = channel.unary_unary("/test.Peer/Unary")
    metadata = (("x-test", "1"), ("x-test-bin", b"\x00\xff"))
    names: dict[str, int] = {}
    seen: Document = {}
    for _ in range(options.count):
        call = method(message, metadata=metadata, timeout=options.timeout)
        seen = json.loads(await call)
        trailers = _trailers(await call.trailing_metadata())
        names[seen["name"]] = names.get(seen["name"], 0) + 1
    intact = seen["sha256"] == hashlib.sha256(message).hexdigest()
    return {"answer": seen, "intact": intact, "trailers": trailers, "names": names}


async def download(channel: Channel, options: argparse.Namespace) -> Document:
    """Server streaming: `gaps` are the seconds between two messages."""
    wish = json.dumps({"count": options.count, "size": options.size, "delay": options.delay}).encode()
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/test.Peer/Download")
    call = method(wish, timeout=options.timeout)
    size = 0
    arrivals: list[float] = []
    async for message in call:
        if int.from_bytes(message[:4], "big") != len(arrivals):
            raise UnexpectedError("messages are out of order")
        arrivals.append(time.monotonic())
        size += len(message)
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    return {
        "messages": len(arrivals),
        "size": size,
        "gaps": gaps,
        "trailers": _trailers(await call.trailing_metadata()),
    }


async def upload(channel: Channel, options: argparse.Namespace) -> Document:
    """Client streaming: `count` messages of `size` bytes."""
    digest = hashlib.sha256()

    async def messages() -> AsyncIterator[bytes]:
        for index in range(options.count):
            message = index.to_bytes(4, "big").ljust(options.size, b"x")
            digest.update(message)
            yield message
            await asyncio.sleep(options.delay)

    method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/test.Peer/Upload")
    call = method(messages(), timeout=options.timeout)
    seen = json.loads(await call)
    intact = seen["sha256"] == digest.hexdigest()
    return {"answer": seen, "intact": intact, "trailers": _trailers(await call.trailing_metadata())}


async def chat(channel: Channel, options: argparse.Namespace) -> Document:
    """Bidirectional: each message is written when the one before came back."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/test.Peer/Chat")
    call = method(timeout=options.timeout)
    for index in range(options.count):
        message = index.to_bytes(4, "big").ljust(options.size, b"x")
        await call.write(message)
        if await call.read() != message:
            raise UnexpectedError(f"message {index} came back changed")
        await asyncio.sleep(options.delay)
    await call.done_writing()
    if await call.read() is not grpc.aio.EOF:
        raise UnexpectedError("more messages came than were sent")
    return {"messages": options.count, "trailers": _trailers(await call.trailing_metadata())}


async def deadline(channel: Channel, options: argparse.Namespace) -> Document:
    """A call that takes longer than its deadline, `delay` seconds, and `took` how long; then one that does not."""
    method: UnaryMethod[bytes, bytes] = channel.unary_unary("/test.Peer/Sleep")
    began = time.monotonic()
    code = await _code(method(b"30", timeout=options.delay))
    took = time.monotonic() - began
    await asyncio.sleep(0.2)
    seen = json.loads(await method(b"0", timeout=options.timeout))
    return {"code": code, "took": took, "cancelled": seen["cancelled"]}


async def cancel(channel: Channel, options: argparse.Namespace) -> Document:
    """A call that the client gives up after `delay` seconds; then one that it does not."""
    method: UnaryMethod[bytes, bytes] = channel.unary_unary("/test.Peer/Sleep")
    call = method(b"30", timeout=options.timeout)
    await asyncio.sleep(options.delay)
    call.cancel()
    code = (await call.code()).name
    await asyncio.sleep(0.2)
    seen = json.loads(await method(b"0", timeout=options.timeout))
    return {"code": code, "cancelled": seen["cancelled"]}


async def fail(channel: Channel, options: argparse.Namespace) -> Document:
    """A call that ends with an error status."""
    method: UnaryMethod[bytes, bytes] = channel.unary_unary("/test.Peer/Fail")
    call = method(b"", timeout=options.timeout)
    code = await _code(call)
    return {"code": code, "message": await call.details(), "trailers": _trailers(await call.trailing_metadata())}


async def unknown(channel: Channel, options: argparse.Namespace) -> Document:
    """A method that does not exist."""
    method: UnaryMethod[bytes, bytes] = channel.unary_unary("/test.Peer/Nothing")
    return {"code": await _code(method(b"", timeout=options.timeout))}


async def _code(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> str:
    return (await call.code()).name


METHODS: dict[str, Callable[[Channel, argparse.Namespace], Awaitable[Document]]] = {
    "unary": unary,
    "download": download,
    "upload": upload,
    "chat": chat,
    "deadline": deadline,
    "cancel": cancel,
    "fail": fail,
    "unknown": unknown,
}


async def run(options: argparse.Namespace) -> Document:
    """Run one method on a channel of its own."""
    limits = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]
    async with grpc.aio.insecure_channel(options.target, options=[*limits, ("grpc.enable_http_proxy", 0)]) as channel:
        return await METHODS[options.method](channel, options)


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description="gRPC client for tests")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("target")
    parser.add_argument("--size", type=int, default=16, help="bytes of a message, at least 4")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0, help="seconds")
    parser.add_argument("--timeout", type=float, default=30, help="deadline of a call, seconds")
    options = parser.parse_args()
    try:
        document = asyncio.run(run(options))
    except grpc.aio.AioRpcError as error:
        print(json.dumps({"error": error.details(), "code": error.code().name}))
        return 1
    except (UnexpectedError, ValueError) as error:
        print(json.dumps({"error": str(error), "code": ""}))
        return 1
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
