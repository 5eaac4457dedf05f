"""Asking a sidecar what would become of a request, on its socket explain.sock (see protocol/explain.py)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from nginx_mesh.protocol.control import SidecarUnreachableError
from nginx_mesh.protocol.explain import Asked, Incoming, NotUnderstoodError, Outgoing, Question, encode

A = TypeVar("A", bound=Asked)

_TIMEOUT_SECONDS = 5.0
_LONGEST_HEAD = 65536
_LONGEST_ANSWER = 16 << 20
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]{1,9})\r\n", re.IGNORECASE)


async def ask_outgoing(path: Path, question: Question) -> Outgoing:
    """Ask the caller's sidecar. Raises SidecarUnreachableError and NotUnderstoodError."""
    return await _ask(path, question, Outgoing)


async def ask_incoming(path: Path, question: Question) -> Incoming:
    """Ask the called sidecar. Raises SidecarUnreachableError and NotUnderstoodError."""
    return await _ask(path, question, Incoming)


async def _ask(path: Path, question: Question, kind: type[A]) -> A:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            status, content = await _exchange(path, encode(question))
    except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
        raise SidecarUnreachableError(str(error) or type(error).__name__) from None
    if status != 200 and content.startswith(b"{"):
        raise SidecarUnreachableError(f"it does not understand the question: {content[:200]!r}")
    if status != 200:
        raise NotUnderstoodError(status)
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise SidecarUnreachableError(f"its answer is not understood: {error}") from None


async def _exchange(path: Path, question: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=_LONGEST_HEAD)
    try:
        writer.write(question)
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = _STATUS_LINE.match(head), _LENGTH.search(head)
        if status is None or length is None or int(length[1]) > _LONGEST_ANSWER:
            raise EOFError("it does not answer as the protocol says")
        return int(status[1]), await reader.readexactly(int(length[1]))
    finally:
        writer.close()
