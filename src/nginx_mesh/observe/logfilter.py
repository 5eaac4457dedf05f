"""A log filter against clients that could fill the log."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

from nginx_mesh.api.errors import one_line


def brief(record: logging.LogRecord) -> bool:
    """A filter for the logger `aiohttp.server`: shortens the report of a request that is not HTTP to one line."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = f"{record.getMessage()}: {one_line(error.message)[:200]}", ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True
