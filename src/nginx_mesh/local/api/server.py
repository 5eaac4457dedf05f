"""The API of a local mesh: JSON over HTTP, objects under the paths that Kubernetes gives them.

| request | |
|---|---|
| GET, PATCH (merge patch), DELETE `/api/v1/…`, `/apis/GROUP/VERSION/…` | objects (objectroutes.py) |
| GET `…/pods/NAME/log?container=&tailLines=&follow=true` | the output of a container (logroutes.py) |
| GET `…/NAME/description` | an object with its events (describe.py) |
| POST `/mesh/apply`, `/mesh/delete` | manifests: `{"files": [{"source", "data" (base64)}], "namespace"}` |
| PATCH `/mesh/settings` | settings that may change while the mesh runs |
| GET `/mesh/readiness?object=kind/name,…&namespace=` | objects that are not ready, and why |
| GET `/mesh/identities` | the SVID of each pod (identityroutes.py) |
| GET `/mesh/identity` | the address of the identity authority, and its trust domain |
| `/identity/…` | the identity authority, when it is in this process (identity/server/admin.py) |
| POST `/mesh/explain` | what the mesh would do with a request: `explain.ExplainRequest` (explain/server.py) |
| GET `/mesh/graph`, `/mesh/workloads/…`, `/mesh/events` | documents of the dashboard (overview/server.py) |
| GET `/mesh/targets`, `/mesh/pods/…/metrics` | the sidecars and their metrics, for Prometheus (control/targets.py) |
| GET `/apis/metrics.smi-spec.io…` | traffic metrics (traffic/server.py) |
| GET `/mesh/tap?of=…` | live requests (control/tap.py) |
| GET `/mesh/status`, `/mesh/services`, …, `/metrics`, `/healthz`, `/readyz` | the whole mesh (control/operator.py) |

Errors are Kubernetes `Status` objects; `details` has one line per error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from aiohttp import web

from .http import errors_as_statuses

_MAX_BODY = 64 << 20


class ApiServer:
    """Serves HTTP on a unix socket that only root can open. `applications` are served below their paths."""

    def __init__(
        self, path: Path, routes: Iterable[web.AbstractRouteDef], applications: Mapping[str, web.Application]
    ) -> None:
        self._path = path
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[errors_as_statuses])
        app.add_routes(routes)
        for prefix, application in applications.items():
            app.add_subapp(prefix, application)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        old = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(old)

    async def close(self) -> None:
        """Stop listening, and end the requests that are being served."""
        await self._runner.cleanup()
