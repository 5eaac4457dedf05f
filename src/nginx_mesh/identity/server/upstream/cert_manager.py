"""The `cert-manager` upstream authority: an issuer of cert-manager signs our CA, asked by a CertificateRequest."""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import kubernetes.client
import msgspec
import urllib3.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nginx_mesh.identity.common.x509svid import SvidError, spiffe_id_of

from . import checks
from .base import MintedCa, UpstreamError
from .calls import BlockingCalls, quoted
from .cluster import TIMEOUT, cluster
from .config import CertManagerConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

_GROUP, _VERSION, _PLURAL = "cert-manager.io", "v1", "certificaterequests"
_TRUST_DOMAIN_LABEL = "nsm.nginx.com/trust-domain"
_MAX_LABEL = 63
_SIGN_SECONDS = 8.0
_POLL_SECONDS = 0.5
_STALE_SECONDS = 3600
"""Nobody waits for a request that is older: whoever made it has asked again or ended."""

_HINTS = {
    401: "are its credentials valid?",
    403: "it needs a Role that allows create, get, list and delete of certificaterequests in cert-manager.io",
    404: "is cert-manager installed, and the namespace there?",
}


class _Condition(msgspec.Struct):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []
    certificate: bytes = b""
    ca: bytes = b""


class _Spec(msgspec.Struct):
    request: bytes


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    creation_timestamp: datetime | None = None


class _CertificateRequest(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)


class _CertificateRequestList(msgspec.Struct):
    items: list[_CertificateRequest]


class CertManagerAuthority:
    """An UpstreamAuthority that asks cert-manager. A request that is open when time is up is found again by its CSR."""

    def __init__(self, config: CertManagerConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._calls = BlockingCalls(str(self))
        self._pending: str | None = None

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        """See UpstreamAuthority. cert-manager lets the validity begin when it signs."""
        return await self._calls.run("signing a CA", lambda: self._ask(lambda api: self._sign(api, csr, not_after)))

    async def roots(self) -> None:
        """See UpstreamAuthority. cert-manager tells the root only with a certificate."""

    async def close(self) -> None:
        """See UpstreamAuthority."""

    def __str__(self) -> str:
        config = self._config
        return f"upstream authority cert-manager ({config.issuer_kind} {config.issuer_name}, {config.namespace})"

    def _ask(self, question: Callable[[_Requests], T]) -> T:
        try:
            with cluster(self._config.kube_config_file, "kube_config_file", _HINTS) as client:
                return question(_Requests(client, self._config.namespace))
        except msgspec.ValidationError as error:
            raise UpstreamError(f"the answer is not one of cert-manager: {error}") from None

    def _sign(self, api: _Requests, csr: x509.CertificateSigningRequest, not_after: float) -> MintedCa:
        now = self._clock()
        try:
            trust_domain = spiffe_id_of(csr).trust_domain
        except SvidError as error:
            raise UpstreamError(f"the CSR: {error}") from None
        pem = csr.public_bytes(serialization.Encoding.PEM)
        name = f"nginx-mesh-ca-{hashlib.sha256(pem).hexdigest()[:20]}"
        label = _label(trust_domain)
        if self._pending is not None and self._pending != name:
            api.delete(self._pending)  # nobody will ask for that one again
        self._pending = name
        api.create(self._body(name, label, pem, max(int(not_after - now), 0)))
        request = self._wait(api, name, pem)
        api.delete(name)
        self._pending = None
        self._clean_up(api, label, now)
        certificate, *others = _parse("status.certificate", request.status.certificate)
        if not request.status.ca:
            raise UpstreamError("the answer has no status.ca: this kind of issuer does not tell its root")
        authorities = _parse("status.ca", request.status.ca)
        roots = checks.self_signed(authorities)
        if not roots:
            raise UpstreamError(
                f"status.ca is {checks.called(authorities[0])}, which is no root; "
                "give the issuer's Secret the whole chain, with the root as its ca.crt"
            )
        return checks.accept(csr, certificate, [*others, *authorities], roots, self._clock())

    def _wait(self, api: _Requests, name: str, pem: bytes) -> _CertificateRequest:
        deadline = time.monotonic() + _SIGN_SECONDS
        while True:
            request = api.get(name)
            if request.spec.request != pem:
                raise UpstreamError(f"CertificateRequest {name} is not ours: it asks for something else")
            for condition in request.status.conditions:
                if _failed(condition):
                    api.delete(name)
                    self._pending = None
                    said = quoted(f"{condition.reason}: {condition.message}", ())
                    raise UpstreamError(f"CertificateRequest {name} is {condition.type}={condition.status}, {said}")
                if condition.type == "Ready" and condition.status == "True":
                    return request
            if time.monotonic() + _POLL_SECONDS > deadline:
                states = ", ".join(f"{c.type}={c.status} {c.reason}" for c in request.status.conditions)
                why = quoted(states, ()) or "no conditions: is cert-manager running?"
                raise UpstreamError(
                    f"CertificateRequest {name} is not signed after {_SIGN_SECONDS:g} s ({why}); "
                    "it stays, and the next attempt looks at it again"
                )
            time.sleep(_POLL_SECONDS)

    def _body(self, name: str, label: str, pem: bytes, seconds: int) -> dict[str, Any]:
        config = self._config
        issuer = {"name": config.issuer_name, "kind": config.issuer_kind, "group": config.issuer_group}
        return {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "CertificateRequest",
            "metadata": {"name": name, "namespace": config.namespace, "labels": {_TRUST_DOMAIN_LABEL: label}},
            "spec": {
                "request": base64.b64encode(pem).decode(),
                "isCA": True,
                "usages": ["cert sign", "crl sign"],
                "duration": f"{seconds}s",
                "issuerRef": issuer,
            },
        }

    def _clean_up(self, api: _Requests, label: str, now: float) -> None:
        """Delete what earlier runs left behind. Younger requests may belong to another server of the mesh."""
        try:
            for request in api.list(label):
                created = request.metadata.creation_timestamp
                if created is not None and created.timestamp() < now - _STALE_SECONDS:
                    api.delete(request.metadata.name)
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError, msgspec.ValidationError) as error:
            log.warning("%s: old CertificateRequests cannot be cleaned up (%s)", self, type(error).__name__)


class _Requests:
    """CertificateRequests of one namespace."""

    def __init__(self, client: kubernetes.client.ApiClient, namespace: str) -> None:
        self._api = kubernetes.client.CustomObjectsApi(client)
        self._place: dict[str, Any] = {"group": _GROUP, "version": _VERSION, "namespace": namespace, "plural": _PLURAL}

    def create(self, body: dict[str, Any]) -> None:
        """Create a request, unless it exists."""
        try:
            self._api.create_namespaced_custom_object(**self._place, body=body, _request_timeout=TIMEOUT)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise

    def get(self, name: str) -> _CertificateRequest:
        found = self._api.get_namespaced_custom_object(**self._place, name=name, _request_timeout=TIMEOUT)
        return msgspec.convert(found, _CertificateRequest)

    def list(self, label: str) -> list[_CertificateRequest]:
        selector = f"{_TRUST_DOMAIN_LABEL}={label}"
        found = self._api.list_namespaced_custom_object(
            **self._place, label_selector=selector, limit=100, _request_timeout=TIMEOUT
        )
        return msgspec.convert(found, _CertificateRequestList).items

    def delete(self, name: str) -> None:
        """Delete a request. One that cannot be deleted is left to the next clean-up."""
        try:
            self._api.delete_namespaced_custom_object(**self._place, name=name, _request_timeout=TIMEOUT)
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            log.warning("CertificateRequest %s cannot be deleted (%s)", name, type(error).__name__)


def _failed(condition: _Condition) -> bool:
    if condition.type in {"Denied", "InvalidRequest"}:
        return condition.status == "True"
    return condition.type == "Ready" and condition.status == "False" and condition.reason in {"Failed", "Denied"}


def _label(trust_domain: str) -> str:
    """The trust domain as the value of a label, or its SHA-256 where a label cannot hold it."""
    if len(trust_domain) <= _MAX_LABEL and trust_domain[0].isalnum() and trust_domain[-1].isalnum():
        return trust_domain
    return hashlib.sha256(trust_domain.encode()).hexdigest()[:_MAX_LABEL]


def _parse(what: str, pem: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return checks.parse_certificates(pem.decode("ascii", "replace"))
    except ValueError as error:
        raise UpstreamError(f"{what} {error}") from None
