"""Secrets are removed, and useful data stays."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.identity.server.ca import key_identifier
from nginx_mesh.support.redaction import Scrubber, redacted, secrets_of
from tests.unit.identity.authorities import Company

EC = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey] = {
    "p256": EC,
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}
FORMATS = (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL)


def encoded(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: serialization.PrivateFormat, pem: bool) -> str:
    encoding = serialization.Encoding.PEM if pem else serialization.Encoding.DER
    data = key.private_bytes(encoding, form, serialization.NoEncryption())
    return data.decode() if pem else base64.b64encode(data).decode()


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("kind", KEYS)
def test_private_keys_are_removed_from_any_text(kind: str, form: serialization.PrivateFormat) -> None:
    pem, der = encoded(KEYS[kind], form, True), encoded(KEYS[kind], form, False)
    body = "".join(pem.splitlines()[1:-1])
    for text in (
        pem,
        json.dumps({"x": pem}),
        der,
        f"a={der};",
        der.replace("+", "-").replace("/", "_"),
        pem[:150],
        body,
    ):
        scrubbed = Scrubber().text(f"before {text} after")
        assert scrubbed.startswith("before ")
        assert body[40:60] not in scrubbed.replace("-", "+").replace("_", "/")
        assert der[40:60] not in scrubbed.replace("-", "+").replace("_", "/")


def test_certificates_and_identifiers_stay() -> None:
    root = Company().root.certificate
    pem = root.public_bytes(serialization.Encoding.PEM).decode()
    identifier = key_identifier(root)
    assert Scrubber().text(pem + identifier) == pem + identifier


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJTRUNSRVQifQ.U0VDUkVU",
        "Authorization: Bearer SECRETSECRET",
        "authorization: basic U0VDUkVUU0VDUkVU==",
        "postgresql://user:SECRET@db/mesh",
        "GET /?a=1&access_token=SECRET&b=2 HTTP/1.1",
        '{"password": "SECRET"}',
        "vault_token=SECRET",
        "DB_PASSWORD=SECRET",
    ],
)
def test_text_that_looks_like_a_secret_is_removed(text: str) -> None:
    scrubbed = Scrubber().text(text)
    assert "SECRET" not in scrubbed and "U0VDUkVU" not in scrubbed
    assert "<redacted>" in scrubbed


def test_log_lines_without_secrets_stay_as_they_are() -> None:
    line = (
        '127.0.0.6 - spiffe://example.org/ns/shop/sa/web [24/Nov/2026:21:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 5 '
        '"curl/8" dst=10.96.0.1:80 policy=shop/web cluster=shop/web:80 upstream=10.244.0.5:8080 time=0.001'
    )
    assert Scrubber(["unrelated"]).text(line) == line


SECRET = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"p": base64.b64encode(b"hunter2-hunter2").decode()}}


def test_known_secrets_are_removed_wherever_they_occur_encoded_or_not() -> None:
    scrubber = Scrubber(secrets_of([SECRET]))
    assert scrubber.text("the app says hunter2-hunter2!") == "the app says <redacted>!"
    assert base64.b64encode(b"hunter2-hunter2").decode() not in scrubber.text(json.dumps(SECRET))


def test_a_secret_of_several_lines_is_removed_line_by_line() -> None:
    secret = {"kind": "Secret", "metadata": {}, "stringData": {"file": "first-line-1\nsecond-line\n"}}
    assert Scrubber(secrets_of([secret])).text("x second-line y first-line-1") == "x <redacted> y <redacted>"


def test_known_secrets_are_removed_as_json_and_urls_encode_them() -> None:
    known = 'quote"back\\slash é'
    scrubber = Scrubber([known])
    for text in (json.dumps({"a": known}, ensure_ascii=False), "/?q=quote%22back%5Cslash%20%C3%A9", known):
        assert "slash" not in scrubber.text(text)


def test_variables_with_secret_names_or_values_are_secrets_and_addresses_are_not() -> None:
    values = {
        "DB_PASSWORD": "simple-word",
        "T": "aJ0intT0ken_0123456789",
        "URL": "http://web.shop:8080/1",
        "N": "1234567",
    }
    env = [{"name": name, "value": value} for name, value in values.items()]
    pod = {"kind": "Pod", "metadata": {}, "spec": {"containers": [{"env": env}]}}
    assert secrets_of([pod]) == {"simple-word", "aJ0intT0ken_0123456789"}


def test_documents_lose_their_secret_fields_and_keep_their_shape() -> None:
    container = {
        "name": "app",
        "image": "app:1",
        "command": ["/bin/app", "--password", "SECRET"],
        "args": ["SECRET"],
        "env": [
            {"name": "A", "value": "SECRET"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "X", "value": "SECRET"}]}},
    }
    annotations = {
        "config.nsm.nginx.com/mtls-mode": "strict",
        "injector.nsm.nginx.com/probes": '{"X": "SECRET"}',
        "kubectl.kubernetes.io/last-applied-configuration": "SECRET",
    }
    pod = {"kind": "Pod", "metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": [container]}}
    config_map = {
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"f": "SECRET"},
        "binaryData": {"g": "SECRET"},
    }
    identity = {"identity": {"svid": "PUBLIC", "key": "SECRET", "bundle": "PUBLIC"}}
    probe = {"probe//health": {"scheme": "http", "headers": {"X-A": "SECRET"}}}
    rule = {"headers": {"authorization": "SECRET.*", "x-version": "2"}}
    found = redacted({"items": [pod, config_map, SECRET, identity, rule, probe]})
    text = json.dumps(found)
    assert "SECRET" not in text
    assert "hunter2" not in text and SECRET["data"]["p"] not in text  # type: ignore[index]
    assert found["items"][0]["metadata"]["annotations"]["config.nsm.nginx.com/mtls-mode"] == "strict"
    shown = found["items"][0]["spec"]["containers"][0]
    assert shown["command"] == ["/bin/app", "<2 more redacted>"]
    assert shown["env"][1] == container["env"][1]  # type: ignore[index]
    assert found["items"][3]["identity"]["svid"] == "PUBLIC"
    assert found["items"][5]["probe//health"] == {"scheme": "http", "headers": {"X-A": "<redacted>"}}
    assert found["items"][4]["headers"]["x-version"] == "2"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_any_document_can_be_redacted(value: object) -> None:
    json.dumps(redacted(value))


@given(st.text(), st.lists(st.text(min_size=6)))
def test_no_text_keeps_a_known_secret(text: str, secrets: list[str]) -> None:
    scrubbed = Scrubber(secrets).text(text + "".join(secrets))
    for secret in secrets:
        for line in secret.splitlines():
            if len(line.strip()) >= 6 and line.strip() not in "<redacted> (a private key) (a token)":
                assert line.strip() not in scrubbed.replace("<redacted>", "\0")
