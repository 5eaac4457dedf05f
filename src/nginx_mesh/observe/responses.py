"""JSON responses of the mesh's HTTP servers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web


def json_response(content: object, status: int = 200) -> web.Response:
    """A response with this content as JSON. The content may be anything that msgspec encodes."""
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")


def status_response(code: int, reason: str, message: str, details: Sequence[str] | None = None) -> web.Response:
    """An error as a Kubernetes Status (metav1.Status).

    `code` is the HTTP status, `reason` one of metav1.StatusReason such as NotFound. The field `details` is an empty
    object, as Kubernetes has it, or the given lines, one per fault.
    """
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    more = {"message": message, "reason": reason, "details": {} if details is None else details, "code": code}
    return json_response({**status, **more}, code)
