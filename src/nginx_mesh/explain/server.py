"""The API's `POST /mesh/explain`."""

from __future__ import annotations

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.status import StatusError
from nginx_mesh.observe.responses import json_response

from . import Explainer, ExplainRequest, ResolveError


def explain_handler(explainer: Explainer) -> Handler:
    """A handler that answers an ExplainRequest with an Explanation. It raises StatusError."""

    async def explain(request: web.Request) -> web.StreamResponse:
        try:
            wanted = msgspec.json.decode(await request.read(), type=ExplainRequest)
            explanation = await explainer.explain(wanted)
        except msgspec.DecodeError as error:
            raise StatusError("BadRequest", str(error)) from None
        except (ResolveError, FieldError) as error:
            raise StatusError("BadRequest", str(error), [str(error)]) from None
        return json_response(explanation)

    return explain
