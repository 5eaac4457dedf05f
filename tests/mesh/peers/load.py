"""An open-loop load generator: so many requests per second, whatever becomes of them.

    load.py --http http://web/echo --grpc prices:50051 --rate 500 --seconds 60

Requests start on a fixed schedule; latency counts from the scheduled start, so that a stall is seen by every request
that it delays. At most `--concurrency` are under way: one that finds no place has failed (`saturated`). HTTP goes over
a pool of kept connections, except for every `--fresh`-th request, which opens its own. Nothing is ever retried.

SIGTERM or SIGINT ends it early. One JSON document goes to stdout:

    {"seconds": 60.0, "sent": 30000, "ok": 30000, "failed": 0, "reasons": {}, "examples": [],
     "protocols": {"http": {"ok": …, "failed": …, "p50_ms": …, "p90_ms": …, "p99_ms": …, "max_ms": …}, "grpc": {…}},
     "served_by": {"web-1": 15000, …}, "longest_gap_ms": 12.0}

`examples` are the first failures with their time; `longest_gap_ms` is the longest time without any success.
Exit code 0 when nothing failed, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

EXAMPLES = 20


class FailedError(Exception):
    """A request did not succeed; the text is its reason."""


Call = Callable[[int], Awaitable[str]]
"""Make one request, given its number; returns who served it."""


class HttpPool:
    """GET over kept connections, newest first. One instance per URL."""

    def __init__(self, url: str, fresh: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        self._fresh = fresh
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, number: int) -> str:
        """One request."""
        alone = self._fresh > 0 and number % self._fresh == 0
        if self._idle and not alone:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        keep = False
        try:
            writer.write((self._head + ("Connection: close\r\n\r\n" if alone else "\r\n")).encode())
            name, keep = await self._answer(reader)
        except asyncio.IncompleteReadError as error:
            raise FailedError("closed within the answer" if error.partial else "closed without an answer") from error
        finally:
            if keep and not alone:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return name

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, bool]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        else:
            await reader.readexactly(int(headers.get("content-length", "0")))
        status = first.split(" ")[1]
        if status != "200":
            raise FailedError(f"HTTP {status}")
        return headers.get("x-served-by", ""), headers.get("connection") != "close"

    def close(self) -> None:
        """End the kept connections."""
        for _, writer in self._idle:
            writer.close()


class GrpcChannel:
    """Unary calls over one channel."""

    def __init__(self, target: str, method: str) -> None:
        self._channel = grpc.aio.insecure_channel(
            target, options=[("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
        )
        self._method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)

    async def call(self, number: int) -> str:
        """One call."""
        call = self._method(b"%d" % number)
        try:
            await call
            trailers = dict(await call.trailing_metadata() or ())
        except grpc.aio.AioRpcError as error:
            raise FailedError(f"gRPC {error.code().name}: {error.details()}") from error
        return str(trailers.get("x-served-by", ""))

    async def close(self) -> None:
        """End the channel."""
        await self._channel.close()


@dataclass
class Tally:
    """What became of the requests of one protocol. Latencies are seconds."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    def summary(self) -> dict[str, Any]:
        """Counts and percentiles."""
        ordered = sorted(self.latencies)
        percentiles = {
            f"{name}_ms": round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2)
            if ordered
            else None
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1))
        }
        return {"ok": len(ordered), "failed": self.failed, **percentiles}


class Load:
    """Runs `calls` by turns at `rate` per second."""

    def __init__(self, calls: list[tuple[str, Call]], *, rate: float, concurrency: int, timeout: float) -> None:
        self._calls = calls
        self._rate = rate
        self._concurrency = concurrency
        self._timeout = timeout
        self._running: set[asyncio.Task[None]] = set()
        self._tallies = {protocol: Tally() for protocol, _ in calls}
        self._reasons: Counter[str] = Counter()
        self._served_by: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []
        self._began = 0.0
        self._last_success = 0.0
        self._longest_gap = 0.0

    async def run(self, seconds: float, total: int, stop: asyncio.Event) -> dict[str, Any]:
        """Send for `seconds`, at most `total` requests, or until `stop`; then wait for the last answers."""
        self._began = self._last_success = time.monotonic()
        number = 0
        while not stop.is_set() and number < min(total, int(seconds * self._rate)):
            scheduled = self._began + number / self._rate
            await asyncio.sleep(max(0.0, scheduled - time.monotonic()))
            protocol, call = self._calls[number % len(self._calls)]
            if len(self._running) < self._concurrency:
                task = asyncio.create_task(self._one(protocol, call, number // len(self._calls), scheduled))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            else:
                self._fail(protocol, "saturated")
            number += 1
        if self._running:
            await asyncio.wait(self._running)
        return self._report(number)

    async def _one(self, protocol: str, call: Call, number: int, scheduled: float) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                name = await call(number)
        except TimeoutError:
            return self._fail(protocol, f"no answer in {self._timeout:g} s")
        except FailedError as error:
            return self._fail(protocol, str(error))
        except (OSError, ValueError) as error:
            return self._fail(protocol, f"{type(error).__name__}: {error}")
        now = time.monotonic()
        self._tallies[protocol].latencies.append(now - scheduled)
        self._served_by[name] += 1
        self._longest_gap = max(self._longest_gap, now - self._last_success)
        self._last_success = now
        return None

    def _fail(self, protocol: str, reason: str) -> None:
        self._tallies[protocol].failed += 1
        self._reasons[f"{protocol}: {reason}"] += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(
                {"at": round(time.monotonic() - self._began, 3), "protocol": protocol, "reason": reason}
            )

    def _report(self, sent: int) -> dict[str, Any]:
        protocols = {protocol: tally.summary() for protocol, tally in self._tallies.items()}
        return {
            "seconds": round(time.monotonic() - self._began, 3),
            "sent": sent,
            "ok": sum(summary["ok"] for summary in protocols.values()),
            "failed": sum(summary["failed"] for summary in protocols.values()),
            "reasons": dict(self._reasons),
            "examples": self._examples,
            "protocols": protocols,
            "served_by": dict(self._served_by),
            "longest_gap_ms": round(1000 * self._longest_gap, 1),
        }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the load that the command line describes; its report."""
    pools = [HttpPool(url, options.fresh) for url in options.http]
    channels = [GrpcChannel(target, options.grpc_method) for target in options.grpc]
    calls: list[tuple[str, Call]] = [("http", pool.call) for pool in pools]
    calls += [("grpc", channel.call) for channel in channels]
    load = Load(calls, rate=options.rate, concurrency=options.concurrency, timeout=options.timeout)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        return await load.run(options.seconds, options.total, stop)
    finally:
        for pool in pools:
            pool.close()
        for channel in channels:
            await channel.close()


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description="open-loop load generator")
    parser.add_argument("--http", action="append", default=[], metavar="URL")
    parser.add_argument("--grpc", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--grpc-method", default="/test.Peer/Unary")
    parser.add_argument("--rate", type=float, default=100, help="requests per second, all together")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--total", type=int, default=1_000_000, help="at most so many requests")
    parser.add_argument("--concurrency", type=int, default=256, help="at most so many at a time")
    parser.add_argument("--fresh", type=int, default=10, help="every n-th HTTP request opens a connection; 0: none")
    parser.add_argument("--timeout", type=float, default=10, help="seconds until a request has failed")
    options = parser.parse_args()
    if not options.http and not options.grpc:
        parser.error("give --http or --grpc")
    report = asyncio.run(run(options))
    print(json.dumps(report))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
