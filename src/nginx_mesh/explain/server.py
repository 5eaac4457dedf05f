"""The API's `POST /mesh/explain`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.status import StatusError

from . import Explainer, Inquiry, PlaceError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def explaining(explainer: Explainer) -> Handler:
    """Answers an Inquiry with an Explanation."""

    async def explain(request: web.Request) -> web.StreamResponse:
        try:
            inquiry = msgspec.json.decode(await request.read(), type=Inquiry)
            explanation = await explainer.explain(inquiry)
        except msgspec.DecodeError as error:
            raise StatusError("BadRequest", str(error)) from None
        except (PlaceError, FieldError) as error:
            raise StatusError("BadRequest", str(error), [str(error)]) from None
        return web.Response(body=msgspec.json.encode(explanation), content_type="application/json")

    return explain
