"""AWS Private CA to test against: a server of ours that keeps to the documented wire contract, and signs for real.

moto's Private CA issues no CAs, whatever the template. Ours answers the four actions that the plugin uses as
https://docs.aws.amazon.com/privateca/latest/APIReference says, and checks every request's signature (Signature V4).
"""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
from aiohttp import web
from cryptography import x509

from nginx_mesh.identity.common.x509svid import certificate_pem
from tests.unit.identity.httpserver import serving

from .pki import Ca, answer, bundle_pem, make_ca

REGION = "us-west-2"
ARN = f"arn:aws:acm-pca:{REGION}:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555"
TEMPLATE = "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1"
ALGORITHM = "SHA256WITHECDSA"


@dataclass
class FakePca:
    """What our server knows, and what a test makes it do wrong."""

    address: str = ""
    root: Ca = field(default_factory=lambda: make_ca("company root"))
    key_id: str = "AKIDEXAMPLE"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    status: str = "ACTIVE"
    pending: int = 1
    """How often a certificate is still being issued when it is asked for."""

    with_root: bool = True
    delay: float = 0
    drip: bool = False
    wrong: dict[str, Any] = field(default_factory=dict)
    """Arguments for `pki.answer`."""

    sign_with: Ca | None = None
    template: str = TEMPLATE
    algorithm: str = ALGORITHM
    issued: dict[str, x509.Certificate] = field(default_factory=dict)
    by_token: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.issuer = make_ca("company pca", self.root, path_length=1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        action = request.headers.get("X-Amz-Target", "").removeprefix("ACMPrivateCA.")
        self.asked.append(action)
        if problem := self._unsigned(request, body):
            return _error(problem, "The security token included in the request is invalid.")
        await asyncio.sleep(self.delay)
        if self.drip:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        asked = json.loads(body)
        if asked["CertificateAuthorityArn"] != ARN:
            return _error("ResourceNotFoundException", f"Could not find {asked['CertificateAuthorityArn']}")
        match action:
            case "DescribeCertificateAuthority":
                configuration = {"KeyAlgorithm": "EC_prime256v1", "SigningAlgorithm": ALGORITHM, "Subject": {}}
                about = {"Arn": ARN, "Status": self.status, "CertificateAuthorityConfiguration": configuration}
                return _json({"CertificateAuthority": about})
            case "GetCertificateAuthorityCertificate":
                chain = {"CertificateChain": self.root.pem} if self.with_root else {}
                return _json({"Certificate": self.issuer.pem, **chain})
            case "IssueCertificate":
                return self._issue(asked)
            case "GetCertificate":
                if self.pending > 0:
                    self.pending -= 1
                    return _error("RequestInProgressException", "The certificate request is in progress")
                certificate = certificate_pem(self.issued[asked["CertificateArn"]])
                signer = self.sign_with or self.issuer
                chain_pem = bundle_pem([signer.certificate, self.root.certificate])
                return _json({"Certificate": certificate, "CertificateChain": chain_pem})
        return _error("UnknownOperationException", "")

    def _unsigned(self, request: web.Request, body: bytes) -> str:
        """ "" if the request is signed with our access key, else the error that AWS answers."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        key_id, _, scope = parts["Credential"].partition("/")
        if scheme != "AWS4-HMAC-SHA256" or key_id != self.key_id:
            return "UnrecognizedClientException"
        assert scope.split("/")[1:] == [REGION, "acm-pca", "aws4_request"]
        wanted = parts["SignedHeaders"].split(";")
        headers = {name: request.headers[name] for name in wanted}
        mirror = botocore.awsrequest.AWSRequest(request.method, f"{self.address}/", headers=headers, data=body)
        mirror.context["timestamp"] = request.headers["X-Amz-Date"]
        auth = botocore.auth.SigV4Auth(botocore.credentials.Credentials(self.key_id, self.secret), "acm-pca", REGION)
        text = auth.string_to_sign(mirror, auth.canonical_request(mirror))
        return "" if auth.signature(text, mirror) == parts["Signature"] else "InvalidSignatureException"

    def _issue(self, asked: dict[str, Any]) -> web.Response:
        if asked["TemplateArn"] != self.template or asked["SigningAlgorithm"] != self.algorithm:
            return _error("InvalidArgsException", "The template or the signing algorithm does not suit this CA")
        validity = asked["Validity"]
        assert validity["Type"] == "ABSOLUTE"
        if validity["Value"] > self.issuer.certificate.not_valid_after_utc.timestamp():
            return _error("ValidationException", "The certificate would outlive its CA")
        if known := self.by_token.get(asked["IdempotencyToken"]):
            return _json({"CertificateArn": known})
        csr = x509.load_pem_x509_csr(base64.b64decode(asked["Csr"]))
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        arguments: dict[str, Any] = {"start": time.time() - 3600, "end": validity["Value"], "uris": list(names)}
        arn = f"{ARN}/certificate/{secrets.token_hex(16)}"
        self.issued[arn] = answer(csr, self.sign_with or self.issuer, **{**arguments, **self.wrong})
        self.by_token[asked["IdempotencyToken"]] = arn
        return _json({"CertificateArn": arn})


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(body, status=status, content_type="application/x-amz-json-1.1")


def _error(code: str, message: str) -> web.Response:
    return _json({"__type": code, "message": message}, 400)


@asynccontextmanager
async def our_pca() -> AsyncIterator[FakePca]:
    pca = FakePca()
    async with serving(pca.handle) as pca.address:
        yield pca
