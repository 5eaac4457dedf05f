"""A TCP server for tests. `--mode` says what it speaks:

| mode | protocol |
|---|---|
| greeting | the server speaks first, as in SMTP: `220 NAME ready`; then it answers `ECHO text`, `PEER`, `QUIT` |
| echo | every byte back as it comes; the end of the client's side ends the server's |
| count | nothing until the client has shut down its side, then `{"name", "bytes", "sha256"}` and the end |
| lines | each line back behind its number |

It prints `{"name": …, "port": …}` when it listens, and on SIGTERM leaves with the connections it has.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable

PIECE = 64 * 1024

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """Greet, then answer commands until QUIT or the end."""
    writer.write(f"220 {name} ready\r\n".encode())
    while line := (await reader.readline()).decode(errors="replace").strip():
        command, _, text = line.partition(" ")
        if command == "ECHO":
            writer.write(f"250 {text}\r\n".encode())
        elif command == "PEER":
            writer.write(f"250 {writer.get_extra_info('peername')[0]}\r\n".encode())
        elif command == "QUIT":
            writer.write(b"221 bye\r\n")
            return
        else:
            writer.write(b"500 unknown command\r\n")
        await writer.drain()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """Give back every byte."""
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """Read until the client's side ends, then say what came."""
    size, digest = 0, hashlib.sha256()
    while piece := await reader.read(PIECE):
        size += len(piece)
        digest.update(piece)
    writer.write(json.dumps({"name": name, "bytes": size, "sha256": digest.hexdigest()}).encode() + b"\n")


async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """Number the lines."""
    number = 0
    while line := await reader.readline():
        number += 1
        writer.write(b"%d %b" % (number, line))
        await writer.drain()


MODES: dict[str, Handler] = {"greeting": greeting, "echo": echo, "count": count, "lines": lines}


async def main(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await MODES[arguments.mode](reader, writer, arguments.name)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    servers = []
    port = arguments.port
    for host in [arguments.host] if arguments.host else ["0.0.0.0", "::"]:
        servers.append(await asyncio.start_server(connected, host, port, backlog=1024))
        port = servers[0].sockets[0].getsockname()[1]
    print(json.dumps({"name": arguments.name, "port": port}), flush=True)
    await stop.wait()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="TCP server for tests")
    result.add_argument("--mode", choices=MODES, required=True)
    result.add_argument("--host", help="address to listen on; every one by default")
    result.add_argument("--port", type=int, default=9000)
    result.add_argument("--name", default=os.environ.get("POD_NAME") or socket.gethostname())
    return result


if __name__ == "__main__":
    asyncio.run(main(parser().parse_args()))
