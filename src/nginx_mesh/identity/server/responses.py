"""Answers of the server's HTTP APIs."""

from __future__ import annotations

import msgspec
from aiohttp import web


def json_response(content: object, status: int = 200) -> web.Response:
    """An answer whose body is `content`, a message or plain values, as JSON."""
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")
