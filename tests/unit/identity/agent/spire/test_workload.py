"""What a SPIRE agent says: taken as the standard has it, left out otherwise."""

from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.identity.agent.spire.workload import WorkloadApiError, certificates, parse_jwt_bundles, parse_x509
from nginx_mesh.identity.agent.workloadapi import messages
from nginx_mesh.identity.agent.workloadapi import workload_pb2 as pb
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.workload import WorkloadContext
from nginx_mesh.identity.common.x509svid import certificate_der
from tests.unit.identity.domains import Domain

DOMAIN, PARTNER = Domain("spire.test"), Domain("partner.test")
PARTNER.rotate()
WEB, DB = DOMAIN.svid("/web"), DOMAIN.svid("/db")


def answer(*svids: Any) -> Any:
    bundles = {domain.name: domain.bundle() for domain in (DOMAIN, PARTNER)}
    return messages.x509_svids(WorkloadContext(svids, bundles))


def test_what_the_workload_api_says_is_read_back() -> None:
    read = parse_x509(answer(WEB, DB))
    assert [(svid.spiffe_id, svid.chain) for svid in read.svids] == [(s.spiffe_id, s.chain) for s in (WEB, DB)]
    assert [svid.key.public_key() for svid in read.svids] == [svid.key.public_key() for svid in (WEB, DB)]
    assert read.bundles == {
        "spire.test": TrustBundle("spire.test", tuple(DOMAIN.authorities)),
        "partner.test": TrustBundle("partner.test", tuple(PARTNER.authorities)),
    }


ED25519 = ed25519.Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("spiffe_id", "", "does not start with"),
        ("spiffe_id", "spiffe://spire.test/db", "another SPIFFE ID"),
        ("spiffe_id", "spiffe://partner.test/web", "not of the trust domain"),
        ("x509_svid", b"", "x509_svid: empty"),
        ("x509_svid", b"\x00" * 1000, "not certificates in DER"),
        ("x509_svid", certificate_der(DOMAIN.authorities[0]), "trust domain, not a workload"),
        ("x509_svid", certificate_der(WEB.chain[0])[:-1], "not certificates in DER"),
        ("x509_svid", certificate_der(WEB.chain[0]) + b"0", "not certificates in DER"),
        ("x509_svid_key", b"", "x509_svid_key"),
        ("x509_svid_key", ED25519, "x509_svid_key"),
        ("x509_svid_key", answer(DB).svids[0].x509_svid_key, "not the key of the certificate"),
        ("bundle", b"", "bundle: empty"),
        ("bundle", b"nonsense", "not certificates in DER"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",  # the same in every process
)
def test_one_bad_svid_is_left_out_with_a_reason(
    field: str, value: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = answer(WEB, DB)
    setattr(message.svids[0], field, value)
    read = parse_x509(message)
    assert [svid.spiffe_id for svid in read.svids] == [DB.spiffe_id]
    assert reason in caplog.text


@pytest.mark.parametrize("name", ["partner.test", "spiffe://partner.test/x", "spiffe://", "https://partner.test"])
def test_a_bundle_of_no_trust_domain_is_left_out(name: str, caplog: pytest.LogCaptureFixture) -> None:
    message = answer(WEB)
    message.federated_bundles[name] = message.federated_bundles.pop("spiffe://partner.test")
    assert parse_x509(message).bundles.keys() == {"spire.test"}
    assert f"bundle of {name!r} is not taken" in caplog.text


def test_a_federated_bundle_cannot_stand_in_for_our_own() -> None:
    message = answer(WEB)
    message.federated_bundles["spiffe://spire.test"] = certificate_der(PARTNER.authorities[0])
    assert parse_x509(message).bundles["spire.test"].x509_authorities == tuple(DOMAIN.authorities)


def test_keys_for_tokens_need_not_say_what_they_are_for() -> None:
    context = WorkloadContext((WEB,), {"spire.test": DOMAIN.bundle()})
    read = parse_jwt_bundles(messages.jwt_bundles(context))
    assert read == {"spire.test": DOMAIN.bundle().jwt_authorities}


@pytest.mark.parametrize(
    "document", [b"", b"[]", b'{"keys": 1}', b'{"keys": [1]}', b"\xff", b'{"keys": [{"kty": "EC"}]}']
)
def test_a_bad_set_of_keys_is_left_out(document: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_jwt_bundles(pb.JWTBundlesResponse(bundles={"spiffe://spire.test": document})) == {}
    assert "JWT bundle of 'spiffe://spire.test' is not taken" in caplog.text


@given(st.binary(max_size=200))
def test_any_bytes_are_certificates_or_an_error(data: bytes) -> None:
    with suppress(WorkloadApiError):
        assert b"".join(map(certificate_der, certificates(data))) == data


@given(st.data())
def test_a_damaged_answer_never_breaks_the_reader(data: st.DataObject) -> None:
    message = answer(WEB)
    field = data.draw(st.sampled_from(["x509_svid", "x509_svid_key", "bundle"]))
    value = bytearray(getattr(message.svids[0], field))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    setattr(message.svids[0], field, bytes(value))
    for svid in parse_x509(message).svids:
        assert svid.key.public_key() == svid.chain[0].public_key()
        assert svid.spiffe_id == WEB.spiffe_id
