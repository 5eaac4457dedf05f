"""Authentication of requests to an API server that Kubernetes aggregates.

Only kube-apiserver, the front proxy, may send requests. It authenticates itself by a client certificate whose common
name must be one of those allowed, and names the user in a header. kube-apiserver has authorized that user already.
Headers in requests from other clients are not trusted.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class UnauthorizedError(Exception):
    """A request is not from a front proxy; the message gives the reason."""


@dataclass(frozen=True)
class FrontProxy:
    """`names` are the allowed common names, empty for any. The first of `headers` that a request has names its user."""

    names: frozenset[str]
    headers: tuple[str, ...] = ("X-Remote-User",)

    def user(self, certificate: Mapping[str, Any] | None, headers: Mapping[str, str], now: float) -> str:
        """The user that a request is for. Raises UnauthorizedError.

        `certificate` is the client certificate as `SSLSocket.getpeercert` gives it, `now` is seconds since the epoch.
        """
        if not certificate:
            raise UnauthorizedError("no client certificate")
        # The handshake checked this too, but the certificate may have expired since.
        if ssl.cert_time_to_seconds(certificate["notAfter"]) <= now:
            raise UnauthorizedError("the client certificate has expired")
        names = [value for part in certificate["subject"] for name, value in part if name == "commonName"]
        if self.names and (len(names) != 1 or names[0] not in self.names):
            raise UnauthorizedError("the client certificate is not that of a front proxy")
        user = next((headers[name] for name in self.headers if headers.get(name)), "")
        if not user:
            raise UnauthorizedError(f"no header {' or '.join(self.headers)}")
        return user
