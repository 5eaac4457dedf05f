"""Health checks of a meshed pod.

The kubelet has no certificate, so in strict mode it could not reach the application. HTTP, HTTPS and TCP checks are
rewritten to requests to the sidecar, on ports that are not redirected. The sidecar checks the application and passes
its response on. The annotation `injector.nsm.nginx.com/probes` holds the original checks, as JSON.

Not rewritten are exec checks, which need no network; gRPC checks, which cannot carry a path (in strict mode their port
has to be among `config.nsm.nginx.com/ignore-incoming-ports`); checks of ports that bypass the sidecar; and
checks of another host than the pod.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from nginx_mesh.api.annotations import PROBES
from nginx_mesh.api.decoding import decode_as
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.names import http_token, port_number
from nginx_mesh.protocol.state import Probe

HTTP_PORT = 8895
HTTPS_PORT = 8896
REDIRECTS = "/health-redirects/"
READY = f"{REDIRECTS}sidecar/ready"

_KINDS = {"livenessProbe": "liveness", "readinessProbe": "readiness", "startupProbe": "startup"}
# Characters that RFC 3986 allows in a path and its query, and "%" for those that are escaped already.
_TARGET_CHARACTERS = "/?:@!$&'()*+,;=-._~%"


class ProbeRedirect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rewritten check: `path` is what the kubelet requests from the sidecar, all else is the original check.

    `original_path` is a request target (path and query), `host` the Host header, empty for the pod's own address, and
    `headers` the other headers. A tcp check only connects to `port`.
    """

    path: str
    scheme: Literal["http", "https", "tcp"]
    port: int
    original_path: str = "/"
    headers: dict[str, str] = {}
    host: str = ""


def probes(annotations: Mapping[str, str]) -> list[ProbeRedirect]:
    """The rewritten checks of an injected pod. Raises FieldError when the annotation is invalid."""
    text = annotations.get(PROBES)
    if text is None:
        return []
    try:
        redirects = decode_as(list[ProbeRedirect], json.loads(text))
        for index, redirect in enumerate(redirects):
            _check(redirect, f"[{index}]")
    except FieldError as error:
        raise FieldError(PROBES, str(error)) from None
    except (ValueError, RecursionError):
        raise FieldError(PROBES, "is not JSON") from None
    return redirects


def probe_entries(annotations: Mapping[str, str]) -> dict[str, Probe]:
    """The health checks that a pod's sidecar performs, by the path of the kubelet's request. Raises FieldError."""
    return {
        redirect.path: Probe(
            scheme=redirect.scheme,
            port=redirect.port,
            path=redirect.original_path,
            headers=redirect.headers,
            host=redirect.host,
        )
        for redirect in probes(annotations)
    }


def rewrite(containers: list[dict[str, Any]], bypassing: Collection[int]) -> list[ProbeRedirect]:
    """Rewrite the checks of these containers in place. `bypassing` are the ports that bypass the sidecar.

    Raises FieldError for a check that is no valid HTTP request.
    """
    redirects = []
    for container in containers:
        for field, kind in _KINDS.items():
            probe = container.get(field)
            if probe:
                redirect = _rewrite(probe, container, kind, bypassing)
                if redirect is not None:
                    _check(redirect, field)
                    redirects.append(redirect)
    return redirects


def encode(redirects: list[ProbeRedirect]) -> str:
    """The value of the annotation that `probes` reads."""
    return msgspec.json.encode(redirects).decode()


def _rewrite(
    probe: dict[str, Any], container: dict[str, Any], kind: str, bypassing: Collection[int]
) -> ProbeRedirect | None:
    action = probe.get("httpGet") or probe.get("tcpSocket")
    if not action or action.get("host"):
        return None
    port = _port_number(action.get("port"), container)
    if port is None or port in bypassing:
        return None
    path = f"{REDIRECTS}{container['name']}/{kind}"
    if probe.get("httpGet"):
        redirect = _http(path, port, action)
        action["port"] = HTTPS_PORT if redirect.scheme == "https" else HTTP_PORT
        action["path"] = path
        return redirect
    del probe["tcpSocket"]
    probe["httpGet"] = {"path": path, "port": HTTP_PORT}
    return ProbeRedirect(path=path, scheme="tcp", port=port)


def _http(path: str, port: int, action: Mapping[str, Any]) -> ProbeRedirect:
    headers: dict[str, str] = {}
    host = ""
    for header in action.get("httpHeaders") or ():
        name, value = header["name"].lower(), header["value"]
        if name == "host":
            host = value
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return ProbeRedirect(
        path=path,
        scheme="https" if action.get("scheme") == "HTTPS" else "http",
        port=port,
        original_path=_target(action.get("path") or "/"),
        headers=headers,
        host=host,
    )


def _target(path: str) -> str:
    """The request target that the kubelet makes of a probe's path."""
    escaped = quote(path.partition("#")[0], safe=_TARGET_CHARACTERS)
    return escaped if escaped.startswith("/") else f"/{escaped}"


def _port_number(port: int | str | None, container: Mapping[str, Any]) -> int | None:
    if isinstance(port, str) and not (port.isascii() and port.isdigit()):
        ports = container.get("ports") or ()
        return next((entry["containerPort"] for entry in ports if entry.get("name") == port), None)
    return None if port is None else int(port)


def _check(redirect: ProbeRedirect, path: str) -> None:
    if not redirect.path.startswith(REDIRECTS) or redirect.path == READY or _target(redirect.path) != redirect.path:
        raise FieldError(f"{path}.path", f'"{redirect.path}" is not a path below {REDIRECTS}')
    if _target(redirect.original_path) != redirect.original_path:
        raise FieldError(f"{path}.original_path", "is not the target of a request")
    reason = port_number(redirect.port)
    if reason is not None:
        raise FieldError(f"{path}.port", reason)
    for name, value in (*redirect.headers.items(), ("host", redirect.host)):
        if http_token(name) is not None or any(character < " " or character == "\x7f" for character in value):
            raise FieldError(f"{path}.headers", "has a header that HTTP does not allow")
