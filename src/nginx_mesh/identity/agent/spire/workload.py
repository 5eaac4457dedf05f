"""A client of the SPIFFE Workload API, for what a SPIRE agent gives us."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import DecodeError, Message

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError
from nginx_mesh.identity.agent.workloadapi import workload_pb2 as pb
from nginx_mesh.identity.agent.workloadapi.server import SECURITY_HEADER, SERVICE
from nginx_mesh.identity.common.bundle import BundleError, JwtAuthority, TrustBundle, decode
from nginx_mesh.identity.common.keys import PrivateKey, key_type_of
from nginx_mesh.identity.common.strictjson import JsonError, parse_object
from nginx_mesh.identity.common.tls import verified_id
from nginx_mesh.identity.common.workload import JwtRefusedError, JwtSvid, WorkloadContext, X509Svid
from nginx_mesh.identity.common.x509svid import SvidError

log = logging.getLogger(__name__)

_FIRST_RETRY = 0.2
_SLOWEST_RETRY = 5.0
# An agent learns of new entries within seconds, and a request costs it little.
_DENIED_RETRY = 1.0
_JWT_TIMEOUT = 10.0
_OPTIONS = [
    # A machine may have SVIDs of a thousand service accounts, at a few KiB each.
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.use_local_subchannel_pool", 1),
]


class WorkloadApiError(ValueError):
    """A part of an answer that does not follow the standard. The message says what is wrong."""


class WorkloadClient:
    """Follows an agent as one workload, and keeps what it was given while the agent does not answer.

    `on_change` is called with all of it after every answer. As the standard demands, an SVID that the agent no longer
    sends is dropped.
    """

    def __init__(self, socket: Path, on_change: Callable[[WorkloadContext], None]) -> None:
        self._target = f"unix:{quote(str(socket))}"
        self._on_change = on_change
        self._x509 = WorkloadContext((), {})
        self._jwt: Mapping[str, tuple[JwtAuthority, ...]] = {}
        self._away: dict[str, str] = {}

    @property
    def problem(self) -> str:
        """Why the agent does not answer, "" if it does."""
        return next(iter(self._away.values()), "")

    async def run(self) -> None:
        """Follow the agent until cancelled."""
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(channel, "FetchX509SVID", pb.X509SVIDResponse, self._take_x509))
            tasks.create_task(self._follow(channel, "FetchJWTBundles", pb.JWTBundlesResponse, self._take_jwt_bundles))

    async def jwt_svids(self, audience: Sequence[str], spiffe_id: SpiffeId) -> list[JwtSvid]:
        """Ask for JWT-SVIDs of an identity. Raises JwtRefusedError."""
        request = pb.JWTSVIDRequest(audience=audience, spiffe_id=str(spiffe_id))
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/FetchJWTSVID", None, None)
            try:
                data = await call(request.SerializeToString(), metadata=(SECURITY_HEADER,), timeout=_JWT_TIMEOUT)
                return [_jwt_svid(svid, spiffe_id) for svid in pb.JWTSVIDResponse.FromString(data).svids]
            except grpc.aio.AioRpcError as error:
                definite = error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
                raise JwtRefusedError(f"SPIRE agent: {error.details()}", unavailable=not definite) from None
            except (DecodeError, WorkloadApiError) as error:
                raise JwtRefusedError(f"SPIRE agent: {error}", unavailable=True) from None

    async def _follow(
        self, channel: grpc.aio.Channel, method: str, response: type[Message], take: Callable[[Any], None]
    ) -> None:
        """Take every answer of a stream, which is opened again when it ends, until cancelled."""
        call: Any = channel.unary_stream(f"/{SERVICE}/{method}", None, None)
        retry, away = _FIRST_RETRY, False
        while True:
            reason = "the stream ended"
            try:
                async for data in call(b"", metadata=(SECURITY_HEADER,)):
                    answer = response.FromString(data)  # gRPC would make None of what it cannot read
                    if away:
                        log.info("SPIRE agent: %s: answers again", method)
                    retry, away = _FIRST_RETRY, False
                    self._away.pop(method, None)
                    take(answer)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.PERMISSION_DENIED:
                    take(response())  # it is entitled to nothing
                    retry, away = _FIRST_RETRY, False
                    self._away.pop(method, None)
                    await asyncio.sleep(_DENIED_RETRY)
                    continue
                reason = f"{error.code().name}: {error.details()}"
            except DecodeError:
                reason = "the answer is malformed"
            except Exception:
                log.exception("SPIRE agent: %s: what it said was not understood", method)
            if not away:
                log.warning("SPIRE agent: %s: %s; what it gave is kept", method, reason)
            away = True
            self._away[method] = f"SPIRE agent: {method}: {reason}"
            await asyncio.sleep(retry)
            retry = min(2 * retry, _SLOWEST_RETRY)

    def _take_x509(self, answer: pb.X509SVIDResponse) -> None:
        self._x509 = parse_x509(answer)
        self._tell()

    def _take_jwt_bundles(self, answer: pb.JWTBundlesResponse) -> None:
        self._jwt = parse_jwt_bundles(answer)
        self._tell()

    def _tell(self) -> None:
        bundles = {
            name: replace(bundle, jwt_authorities=self._jwt.get(name, ()))
            for name, bundle in self._x509.bundles.items()
        }
        self._on_change(WorkloadContext(self._x509.svids, bundles))


def parse_x509(answer: pb.X509SVIDResponse) -> WorkloadContext:
    """SVIDs and bundles of an answer to FetchX509SVID, one SVID for each identity.

    What does not follow the standard is left out and logged. The rest is taken.
    """
    svids: dict[SpiffeId, X509Svid] = {}
    bundles: dict[str, TrustBundle] = {}
    for message in answer.svids:
        try:
            svid = _svid(message)
            bundle = _x509_bundle(svid.spiffe_id.trust_domain, message.bundle)
        except WorkloadApiError as error:
            log.error("SPIRE agent: SVID of %.2048r is not taken: %s", message.spiffe_id, error)
            continue
        svids.setdefault(svid.spiffe_id, svid)
        bundles.setdefault(bundle.trust_domain, bundle)
    for name, der in answer.federated_bundles.items():
        try:
            trust_domain = _trust_domain(name)
            bundles.setdefault(trust_domain, _x509_bundle(trust_domain, der))
        except WorkloadApiError as error:
            log.error("SPIRE agent: bundle of %.2048r is not taken: %s", name, error)
    return WorkloadContext(tuple(svids.values()), bundles)


def parse_jwt_bundles(answer: pb.JWTBundlesResponse) -> dict[str, tuple[JwtAuthority, ...]]:
    """The keys of an answer to FetchJWTBundles, by trust domain. Parts are left out as in parse_x509."""
    found: dict[str, tuple[JwtAuthority, ...]] = {}
    for name, document in answer.bundles.items():
        try:
            trust_domain = _trust_domain(name)
            found[trust_domain] = _jwt_authorities(trust_domain, document)
        except WorkloadApiError as error:
            log.error("SPIRE agent: JWT bundle of %.2048r is not taken: %s", name, error)
    return found


def certificates(der: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in concatenated DER. Raises WorkloadApiError."""
    found = []
    while der:
        size = _der_size(der)
        try:
            found.append(x509.load_der_x509_certificate(der[:size]))
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
            raise WorkloadApiError("not certificates in DER") from None
        der = der[size:]
    return tuple(found)


def _der_size(der: bytes) -> int:
    """The number of bytes of the DER sequence that `der` begins with."""
    if len(der) < 2 or der[0] != 0x30:
        raise WorkloadApiError("not certificates in DER")
    size, header = der[1], 2
    if size >= 0x80:  # the length is in so many bytes
        header += size & 0x7F
        size = int.from_bytes(der[2:header], "big")
    if size == 0 or header + size > len(der):
        raise WorkloadApiError("not certificates in DER")
    return header + size


def _svid(message: pb.X509SVID) -> X509Svid:
    chain = certificates(message.x509_svid)
    if not chain:
        raise WorkloadApiError("x509_svid: empty")
    try:
        spiffe_id = SpiffeId.parse(message.spiffe_id)
        proved = verified_id(chain[0], spiffe_id.trust_domain)
        public_key = chain[0].public_key()
    except (SpiffeIdError, SvidError) as error:
        raise WorkloadApiError(str(error)) from None
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise WorkloadApiError("x509_svid: a certificate that we cannot read") from None
    if proved != spiffe_id:
        raise WorkloadApiError("x509_svid: the certificate has another SPIFFE ID")
    key = _key(message.x509_svid_key)
    if key.public_key() != public_key:
        raise WorkloadApiError("x509_svid_key: not the key of the certificate")
    return X509Svid(spiffe_id, chain, key)


def _key(der: bytes) -> PrivateKey:
    try:
        key = serialization.load_der_private_key(der, password=None)
        key_type_of(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's message may quote parts of it.
        raise WorkloadApiError("x509_svid_key: not a private key of a type that we know, in PKCS #8") from None
    assert isinstance(key, PrivateKey)  # noqa: S101 - what key_type_of just established
    return key


def _x509_bundle(trust_domain: str, der: bytes) -> TrustBundle:
    roots = certificates(der)
    if not roots:
        raise WorkloadApiError("bundle: empty")
    return TrustBundle(trust_domain, roots)


def _trust_domain(name: str) -> str:
    try:
        spiffe_id = SpiffeId.parse(name)
    except SpiffeIdError as error:
        raise WorkloadApiError(str(error)) from None
    if spiffe_id.path:
        raise WorkloadApiError("not the SPIFFE ID of a trust domain")
    return spiffe_id.trust_domain


def _jwt_authorities(trust_domain: str, document: bytes) -> tuple[JwtAuthority, ...]:
    # The keys of a JWK set that is for JWT-SVIDs alone need not say so each.
    try:
        keys = parse_object(document).get("keys")
        if isinstance(keys, list):
            keys = [{"use": "jwt-svid", **key} if isinstance(key, dict) else key for key in keys]
        return decode(trust_domain, json.dumps({"keys": keys}).encode()).jwt_authorities
    except (JsonError, BundleError) as error:
        raise WorkloadApiError(str(error)) from None


def _jwt_svid(message: pb.JWTSVID, spiffe_id: SpiffeId) -> JwtSvid:
    """The JWT-SVID in a message. Its signature is not checked: whoever receives the token has to do so."""
    claims: Mapping[str, Any] = {}
    with suppress(jwt.InvalidTokenError):
        claims = jwt.decode(message.svid, options={"verify_signature": False})
    if claims.get("sub") != str(spiffe_id) or not isinstance(claims.get("exp"), int):
        raise WorkloadApiError(f"not a JWT-SVID of {spiffe_id}")
    return JwtSvid(spiffe_id, message.svid, claims["exp"])
