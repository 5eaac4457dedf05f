"""What the handlers of the API share: how they read requests, and how errors become responses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from nginx_mesh.api import discovery
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.status import StatusError
from nginx_mesh.observe.responses import status_response

from .store import StoreError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Namespaced and cluster-wide objects, of the core group and of named groups.
OBJECT_PATHS = tuple(
    prefix + scope
    for prefix in ("/api/{version}", "/apis/{group}/{version}")
    for scope in ("/namespaces/{namespace}/{plural}", "/{plural}")
)

_CODES = {"BadRequest": 400, "Forbidden": 403, "NotFound": 404, "Conflict": 409, "Invalid": 422}


@web.middleware
async def errors_as_statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a Kubernetes Status object."""
    try:
        return await handler(request)
    except StatusError as error:
        return status_response(_CODES[error.reason], error.reason, str(error), error.details)
    except StoreError as error:
        return status_response(500, "InternalError", str(error))
    except web.HTTPException as error:
        return status_response(error.status, error.reason.replace(" ", ""), error.text or error.reason)
    except ConnectionError:
        raise  # the client closed its connection
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return status_response(500, "InternalError", "an internal error; the daemon's log tells more")


async def json_body(request: web.Request, shape: type[Any]) -> Any:
    """The body of a request, decoded as `shape`. Raises StatusError."""
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except msgspec.DecodeError as error:
        raise StatusError("BadRequest", str(error)) from None


def kind_titled(title: str) -> type[Object]:
    """The kind with this name, plural or short name. Raises StatusError."""
    kind = discovery.find(title)
    if kind is None:
        raise StatusError("NotFound", f'there is no resource type "{title}"')
    return kind


def kind_of(request: web.Request) -> type[Object]:
    """The kind in the path of a request. Raises StatusError."""
    return kind_titled(request.match_info["plural"])


def key_of(request: web.Request) -> ObjectKey:
    """The object in the path of a request. Raises StatusError."""
    return ObjectKey(kind_of(request).KIND, request.match_info.get("namespace", ""), request.match_info["name"])


def number(request: web.Request, name: str) -> int | None:
    """A query parameter that is a whole number, None when it is missing. Raises StatusError."""
    text = request.query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise StatusError("BadRequest", f'{name}: "{text}" is not a number')
    return int(text)
