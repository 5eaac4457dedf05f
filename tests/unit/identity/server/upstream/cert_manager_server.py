"""A Kubernetes API server with cert-manager behind it, to test against: ours, over HTTPS, signing for real.

It serves CertificateRequests as https://cert-manager.io/docs/usage/certificaterequest and the Kubernetes API
conventions say, checks what cert-manager's webhook checks, and signs as its controller with a CA issuer does.
"""

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from cryptography import x509

from nginx_mesh.identity.common.x509svid import certificate_pem
from tests.unit.identity.server.kubernetes import KubernetesServer, no_such_resource, status

from .pki import NOW, Ca, answer, bundle_pem, make_ca

NAMESPACE, ISSUER = "sandbox", "mesh-ca"
PREFIX = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificaterequests"
USAGES = {"cert sign", "crl sign", "digital signature", "key encipherment", "server auth", "client auth"}


@dataclass
class FakeCertManager(KubernetesServer):
    """What our server knows, and what a test makes it do wrong."""

    root: Ca = field(default_factory=lambda: make_ca("company root"))
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    ignored: int = 1
    """How often a request is still pending when it is looked at."""

    conditions: list[dict[str, str]] | None = None
    """Set on every request, instead of signing it."""

    wrong: dict[str, Any] = field(default_factory=dict)
    sign_with: Ca | None = None
    status_ca: str | None = None
    forbidden: tuple[str, ...] = ()
    garbage: str | None = None

    def __post_init__(self) -> None:
        self.issuer = make_ca("company issuer", self.root, path_length=1)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        path, method = request.path, request.method
        if not path.startswith(PREFIX):
            return no_such_resource()
        if method in self.forbidden:
            what = 'certificaterequests.cert-manager.io is forbidden: User "mesh" cannot do that'
            return status(403, "Forbidden", what)
        name = path.removeprefix(PREFIX).strip("/")
        if method == "POST":
            return self._create(await request.json())
        if method == "GET" and not name:
            label, _, value = request.query["labelSelector"].partition("=")
            items = [o for o in self.objects.values() if o["metadata"]["labels"].get(label) == value]
            return web.json_response({"kind": "CertificateRequestList", "metadata": {}, "items": items})
        if name not in self.objects:
            return status(404, "NotFound", f'certificaterequests.cert-manager.io "{name}" not found')
        if method == "DELETE":
            return web.json_response({"kind": "Status", "status": "Success", "details": {"name": self._delete(name)}})
        if self.garbage is not None:
            return web.Response(text=self.garbage, content_type="application/json")
        if self.ignored > 0:
            self.ignored -= 1
        else:
            self._reconcile(self.objects[name])
        return web.json_response(self.objects[name])

    def _delete(self, name: str) -> str:
        del self.objects[name]
        return name

    def _create(self, given: dict[str, Any]) -> web.Response:
        name, spec = given["metadata"]["name"], given["spec"]
        assert given["apiVersion"] == "cert-manager.io/v1"
        assert given["kind"] == "CertificateRequest"
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name)
        assert re.fullmatch(
            r"([A-Za-z0-9][A-Za-z0-9._-]{0,61})?[A-Za-z0-9]", next(iter(given["metadata"]["labels"].values()))
        )
        assert set(spec) <= {"request", "isCA", "usages", "duration", "issuerRef"}
        assert set(spec["usages"]) <= USAGES
        assert re.fullmatch(r"[0-9]+s", spec["duration"])
        if name in self.objects:
            return status(409, "AlreadyExists", f'certificaterequests.cert-manager.io "{name}" already exists')
        csr = _csr(spec)
        # The webhook refuses a request whose usages or isCA are not those of the CSR in it.
        usage = csr.extensions.get_extension_for_class(x509.KeyUsage).value
        assert csr.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is spec["isCA"] is True
        assert {"cert sign": usage.key_cert_sign, "crl sign": usage.crl_sign} == dict.fromkeys(spec["usages"], True)
        made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        given["metadata"] |= {"uid": f"{len(self.asked)}", "creationTimestamp": made, "generation": 1}
        self.objects[name] = given
        return web.json_response(given, status=201)

    def _reconcile(self, stored: dict[str, Any]) -> None:
        if self.conditions is not None:
            stored["status"] = {"conditions": self.conditions}
            return
        spec = stored["spec"]
        approved = {"type": "Approved", "status": "True", "reason": "cert-manager.io", "message": "approved"}
        if spec["issuerRef"] != {"name": ISSUER, "kind": "Issuer", "group": "cert-manager.io"}:
            missing = {
                "type": "Ready",
                "status": "False",
                "reason": "Pending",
                "message": "Referenced Issuer not found",
            }
            stored["status"] = {"conditions": [approved, missing]}
            return
        csr = _csr(spec)
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        arguments: dict[str, Any] = {"end": NOW + int(spec["duration"].removesuffix("s")), "uris": list(names)}
        signer = self.sign_with or self.issuer
        own = certificate_pem(answer(csr, signer, **{**arguments, **self.wrong}))
        ca = bundle_pem([self.root.certificate]) if self.status_ca is None else self.status_ca
        ready = {"type": "Ready", "status": "True", "reason": "Issued", "message": "Certificate fetched from issuer"}
        stored["status"] = {"conditions": [approved, ready], "certificate": _base64(own + signer.pem)}
        if ca:
            stored["status"]["ca"] = _base64(ca)


def left_behind(name: str, label: str, made: float) -> dict[str, Any]:
    """A request of an earlier run."""
    created = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": name, "labels": {"nsm.nginx.com/trust-domain": label}, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"request": ""}}


def _csr(spec: dict[str, Any]) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(base64.b64decode(spec["request"], validate=True))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
