"""Who may ask an API server that Kubernetes aggregates: kube-apiserver, and it says for whom.

It proves itself by a client certificate, whose common name has to be among those allowed, and names the user in a
header. Whether that user may ask is kube-apiserver's decision. Nobody else is believed, whatever headers they send.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class UnauthorizedError(Exception):
    """Who asks is not who may; the message says why."""


@dataclass(frozen=True)
class FrontProxy:
    """`names` are the common names allowed, empty for any. `headers` name the user; the first that is there counts."""

    names: frozenset[str]
    headers: tuple[str, ...] = ("X-Remote-User",)

    def user(self, certificate: Mapping[str, Any] | None, headers: Mapping[str, str], now: float) -> str:
        """For whom a request is. `certificate` is what the handshake proved, as `ssl` has it; `now` is in its time.

        Raises UnauthorizedError.
        """
        if not certificate:
            raise UnauthorizedError("no client certificate")
        # The connection may be older than the end of the certificate.
        if ssl.cert_time_to_seconds(certificate["notAfter"]) <= now:
            raise UnauthorizedError("the client certificate has expired")
        names = [value for part in certificate["subject"] for name, value in part if name == "commonName"]
        if self.names and (len(names) != 1 or names[0] not in self.names):
            raise UnauthorizedError("the client certificate is not that of a front proxy")
        user = next((headers[name] for name in self.headers if headers.get(name)), "")
        if not user:
            raise UnauthorizedError(f"no header {' or '.join(self.headers)}")
        return user
