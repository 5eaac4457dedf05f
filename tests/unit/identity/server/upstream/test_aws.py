"""The plugins of AWS: `awssecret` against moto's server; `aws_pca` against one of ours, and against moto's as far as
that goes (it finds CAs and signs CSRs, but never as CAs, which is refused)."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from moto.server import ThreadedMotoServer

from nginx_mesh.api.settings import UpstreamAuthority as Settings
from nginx_mesh.identity.server.upstream import MintedCa, UpstreamAuthority, UpstreamError, aws, aws_pca, open_upstream
from nginx_mesh.identity.server.upstream.aws_pca import AwsPcaAuthority

from .pca_server import ALGORITHM, ARN, REGION, FakePca, our_pca
from .pki import DAY, NOW, WRONG_ANSWERS, Ca, assert_openssl_accepts, key_usage, make_ca, request

OURS = request()
ROLE = "arn:aws:iam::123456789012:role/mesh"


@pytest.fixture(autouse=True)
def _no_credentials_from_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(moto: str, service: str) -> Any:
    return boto3.client(
        service,
        REGION,
        endpoint_url=moto,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106
    )


def opened(plugin: Any, config: dict[str, Any]) -> UpstreamAuthority:
    return open_upstream(Settings(api_version="v1", upstream_authority=plugin, config=config))


async def mint(authority: UpstreamAuthority, life: float = 3600) -> MintedCa:
    now = time.time()
    return await authority.mint_ca(OURS.csr, now - 300, now + life)


async def refusal(plugin: str, config: dict[str, Any], *secrets: str) -> str:
    started = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        await mint(opened(plugin, config))
    assert time.monotonic() - started < 30
    for secret in secrets:
        assert secret not in str(caught.value)
    assert str(caught.value).startswith(f"upstream authority {plugin} (arn:aws:")
    return str(caught.value)


# awssecret


class Secrets:
    """A CA in moto's Secrets Manager."""

    def __init__(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address = address
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", address)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", address)
        manager = client(address, "secretsmanager")
        self._manager = manager
        unique = f"{time.monotonic_ns()}"
        self.cert_arn, self.key_arn = (
            str(manager.create_secret(Name=f"{what}-{unique}", SecretString="-")["ARN"]) for what in ("cert", "key")
        )

    def put(self, certificates: str, key: str) -> None:
        self._manager.put_secret_value(SecretId=self.cert_arn, SecretString=certificates)
        self._manager.put_secret_value(SecretId=self.key_arn, SecretString=key)

    def put_bytes(self, certificates: bytes) -> None:
        self._manager.put_secret_value(SecretId=self.cert_arn, SecretBinary=certificates)

    def config(self, **more: Any) -> dict[str, Any]:
        credentials = {"aws_access_key_id": "AKIDTEST", "aws_secret_access_key": "s3cr3t"}
        arns = {"cert_file_arn": self.cert_arn, "key_file_arn": self.key_arn}
        return {"region": REGION, **arns, **credentials, **more}


@pytest.fixture
def stored(moto: str, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    return Secrets(moto, monkeypatch)


ROOT = make_ca("root")
MIDDLE = make_ca("middle", ROOT, path_length=1)


async def test_a_self_signed_ca_in_secrets_manager_signs(stored: Secrets, tmp_path: Path) -> None:
    stored.put(ROOT.pem, ROOT.key_pem)
    authority = opened("awssecret", stored.config())
    minted = await mint(authority)
    assert minted.roots == await authority.roots() == (ROOT.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)


async def test_an_intermediate_with_its_chain_in_secrets_manager_signs(stored: Secrets, tmp_path: Path) -> None:
    stored.put("-", MIDDLE.key_pem)
    stored.put_bytes((MIDDLE.pem + ROOT.pem).encode())
    minted = await mint(opened("awssecret", stored.config()))
    assert minted.chain[1:] == (MIDDLE.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)


async def test_another_ca_in_secrets_manager_is_used_from_then_on(stored: Secrets) -> None:
    stored.put(ROOT.pem, ROOT.key_pem)
    authority = opened("awssecret", stored.config())
    await mint(authority)
    other = make_ca("other")
    stored.put(other.pem, other.key_pem)
    assert (await mint(authority)).roots == (other.certificate,)


async def test_the_roots_are_known_without_the_key(stored: Secrets) -> None:
    stored.put(ROOT.pem, "-")
    assert await opened("awssecret", stored.config()).roots() == (ROOT.certificate,)


@pytest.mark.parametrize(
    ("certificates", "key", "reason"),
    [
        (MIDDLE.pem, MIDDLE.key_pem, '"CN=middle" is not self-signed, and there is no bundle'),
        (ROOT.pem, MIDDLE.key_pem, "is not the key of the first certificate in config.cert_file_arn arn:"),
        (ROOT.pem, "hello s3cr3t", "not a private key in unencrypted PEM"),
        ("hello s3cr3t", ROOT.key_pem, "is not certificates in PEM"),
        (*(lambda ca: (ca.pem, ca.key_pem))(make_ca("over", end=NOW - 1)), "no root certificate that is self-signed"),
        (*(lambda ca: (ca.pem, ca.key_pem))(make_ca("short", path_length=0)), "has path length 0"),
        (*(lambda ca: (ca.pem, ca.key_pem))(make_ca("no ca", ca=False)), '"CN=no ca" is no CA'),
        (*(lambda ca: (ca.pem, ca.key_pem))(make_ca("usage", usage=key_usage(crl_sign=True))), "may not sign"),
    ],
)
async def test_secrets_that_do_not_fit_are_refused(certificates: str, key: str, reason: str, stored: Secrets) -> None:
    stored.put(certificates, key)
    assert reason in await refusal("awssecret", stored.config(), "s3cr3t")


async def test_a_secret_that_is_not_there_is_named(stored: Secrets) -> None:
    missing = stored.cert_arn + "x"
    message = await refusal("awssecret", stored.config(cert_file_arn=missing))
    assert "AWS refuses GetSecretValue: ResourceNotFoundException" in message
    assert "is the ARN right, and the region?" in message


async def test_an_unknown_access_key_is_refused(stored: Secrets) -> None:
    stored.put(ROOT.pem, ROOT.key_pem)
    requests.post(f"{stored.address}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        message = await refusal("awssecret", stored.config(), "s3cr3t")
    finally:
        requests.post(f"{stored.address}/moto-api/reset-auth", data=b"Infinity", timeout=10)
    assert "AWS refuses GetSecretValue: 403" in message  # moto refuses in XML, which AWS here does not
    assert "is the access key right, and the clock?" in message


async def test_no_credentials_at_all_are_said_to_be_missing(stored: Secrets) -> None:
    config = {k: v for k, v in stored.config().items() if not k.startswith("aws_")}
    assert "no credentials: config has no aws_access_key_id" in await refusal("awssecret", config)


async def test_credentials_may_come_from_the_environment(stored: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.put(ROOT.pem, ROOT.key_pem)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    config = {k: v for k, v in stored.config().items() if not k.startswith("aws_")}
    assert (await mint(opened("awssecret", config))).roots == (ROOT.certificate,)


async def test_a_role_is_assumed_first(stored: Secrets) -> None:
    stored.put(ROOT.pem, ROOT.key_pem)
    role = client(stored.address, "iam").create_role(
        RoleName=f"mesh-{time.monotonic_ns()}", AssumeRolePolicyDocument="{}"
    )["Role"]["Arn"]
    requests.post(f"{stored.address}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        message = await refusal("awssecret", stored.config(assume_role_arn=role), "s3cr3t")
    finally:
        requests.post(f"{stored.address}/moto-api/reset-auth", data=b"Infinity", timeout=10)
    assert "AWS refuses AssumeRole: InvalidClientTokenId" in message
    assert (await mint(opened("awssecret", stored.config(assume_role_arn=role)))).roots == (ROOT.certificate,)


async def test_a_secrets_manager_that_is_not_there_fails_soon(stored: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1")
    message = await refusal("awssecret", stored.config(), "s3cr3t")
    assert "AWS cannot be asked: " in message


# aws_pca


@pytest.fixture
async def pca() -> AsyncIterator[FakePca]:
    async with our_pca() as server:
        yield server


def pca_config(pca: FakePca, **more: Any) -> dict[str, Any]:
    credentials = {"aws_access_key_id": pca.key_id, "aws_secret_access_key": pca.secret}
    return {
        "region": REGION,
        "certificate_authority_arn": ARN,
        "endpoint": pca.address,
        **credentials,
        **more,
    }


async def test_a_private_ca_signs_as_its_subordinate(pca: FakePca, tmp_path: Path) -> None:
    authority = opened("aws_pca", pca_config(pca))
    minted = await mint(authority)
    assert minted.chain[1:] == (pca.issuer.certificate,)
    assert minted.roots == await authority.roots() == (pca.root.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)
    assert pca.asked.count("GetCertificate") == 2  # the first time it was still being issued


async def test_what_would_outlive_the_private_ca_ends_with_it(pca: FakePca) -> None:
    minted = await mint(opened("aws_pca", pca_config(pca)), life=365 * DAY)
    assert minted.limit == pca.issuer.certificate.not_valid_after_utc.timestamp()


async def test_template_and_algorithm_are_those_configured(pca: FakePca) -> None:
    pca.template = "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen1/V1"
    pca.algorithm = "SHA512WITHECDSA"
    chosen = {"ca_signing_template_arn": pca.template, "signing_algorithm": pca.algorithm}
    await mint(opened("aws_pca", pca_config(pca, **chosen)))
    pca.algorithm = ALGORITHM
    assert "AWS refuses IssueCertificate: InvalidArgsException" in await refusal("aws_pca", pca_config(pca, **chosen))


async def test_the_same_request_again_is_the_same_certificate(pca: FakePca) -> None:
    authority = opened("aws_pca", pca_config(pca))
    assert (await mint(authority)).chain[0] == (await mint(authority)).chain[0]


async def test_a_root_that_aws_does_not_know_comes_from_the_supplemental_bundle(pca: FakePca, tmp_path: Path) -> None:
    pca.with_root = False
    assert "put the root into a file for supplemental_bundle_path" in await refusal("aws_pca", pca_config(pca))
    bundle, other = tmp_path / "roots.pem", make_ca("other root")
    bundle.write_text(pca.root.pem + other.pem)
    minted = await mint(opened("aws_pca", pca_config(pca, supplemental_bundle_path=str(bundle))))
    assert minted.roots == (pca.root.certificate, other.certificate)
    assert_openssl_accepts(tmp_path, minted, OURS.key)
    bundle.unlink()
    message = await refusal("aws_pca", pca_config(pca, supplemental_bundle_path=str(bundle)))
    assert f"config.supplemental_bundle_path {bundle}: cannot be read" in message


@pytest.mark.parametrize("status", ["DISABLED", "EXPIRED", "PENDING_CERTIFICATE", "DELETED"])
async def test_a_private_ca_that_is_not_active_is_not_asked_to_sign(status: str, pca: FakePca) -> None:
    pca.status = status
    assert f"the CA is {status}; it issues only while it is ACTIVE" in await refusal("aws_pca", pca_config(pca))
    assert "IssueCertificate" not in pca.asked


@pytest.mark.parametrize(("wrong", "reason"), WRONG_ANSWERS, ids=[reason for _, reason in WRONG_ANSWERS])
async def test_a_wrong_answer_is_refused(wrong: dict[str, Any], reason: str, pca: FakePca) -> None:
    pca.wrong = wrong
    assert reason in await refusal("aws_pca", pca_config(pca), pca.secret)


async def test_an_answer_of_another_ca_is_refused(pca: FakePca) -> None:
    pca.sign_with = make_ca("another pca", pca.root)
    assert '"CN=another pca" is missing from the chain and the roots' in await refusal("aws_pca", pca_config(pca))


async def test_wrong_keys_are_refused(pca: FakePca) -> None:
    message = await refusal("aws_pca", pca_config(pca, aws_secret_access_key="s3cr3t"), "s3cr3t")  # noqa: S106
    assert "AWS refuses DescribeCertificateAuthority: InvalidSignatureException" in message
    message = await refusal("aws_pca", pca_config(pca, aws_access_key_id="AKIDOTHER"), pca.secret)
    assert "UnrecognizedClientException" in message


async def test_a_private_ca_that_is_not_there_is_named(pca: FakePca) -> None:
    message = await refusal("aws_pca", pca_config(pca, certificate_authority_arn=ARN + "x"))
    assert "ResourceNotFoundException" in message


async def test_a_certificate_that_is_never_issued_fails_in_time(pca: FakePca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_pca, "_ISSUE_SECONDS", 0.6)
    monkeypatch.setattr(aws_pca, "_POLL_SECONDS", 0.1)
    pca.pending = 1000
    assert "AWS did not issue the certificate within 0.6 s" in await refusal("aws_pca", pca_config(pca))


async def test_an_endpoint_that_does_not_answer_fails_in_time(pca: FakePca, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = aws._CLIENT.merge(Config(read_timeout=0.3))
    monkeypatch.setattr(aws, "_CLIENT", quick)
    pca.delay = 60
    assert "no answer within" in await refusal("aws_pca", pca_config(pca))


async def test_an_endpoint_that_answers_a_byte_at_a_time_fails_in_time(pca: FakePca) -> None:
    authority = opened("aws_pca", pca_config(pca))
    assert isinstance(authority, AwsPcaAuthority)
    authority._calls._seconds = 1.5
    pca.drip = True
    with pytest.raises(UpstreamError, match=r"signing a CA: no answer within 1\.5 s"):
        await mint(authority)


async def test_an_endpoint_that_is_not_there_fails_soon(pca: FakePca) -> None:
    message = await refusal("aws_pca", pca_config(pca, endpoint="http://127.0.0.1:1"), pca.secret)
    assert "AWS cannot be asked: " in message


def moto_pca(moto: str) -> tuple[str, Ca]:
    manager = client(moto, "acm-pca")
    subject = {"CommonName": "moto pca"}
    configuration = {"KeyAlgorithm": "RSA_2048", "SigningAlgorithm": "SHA512WITHRSA", "Subject": subject}
    created = manager.create_certificate_authority(
        CertificateAuthorityConfiguration=configuration, CertificateAuthorityType="ROOT"
    )
    return str(created["CertificateAuthorityArn"]), ROOT


async def test_motos_private_ca_is_found_asked_and_its_certificate_refused_as_it_is_no_ca(moto: str) -> None:
    arn, _ = moto_pca(moto)
    manager = client(moto, "acm-pca")
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    config = {"region": REGION, "certificate_authority_arn": arn, "endpoint": moto, **credentials}
    assert "the CA is PENDING_CERTIFICATE" in await refusal("aws_pca", config)
    csr = manager.get_certificate_authority_csr(CertificateAuthorityArn=arn)["Csr"]
    template = "arn:aws:acm-pca:::template/RootCACertificate/V1"
    issued = manager.issue_certificate(
        CertificateAuthorityArn=arn,
        Csr=csr.encode(),
        SigningAlgorithm="SHA512WITHRSA",
        TemplateArn=template,
        Validity={"Type": "DAYS", "Value": 10},
    )
    own = manager.get_certificate(CertificateAuthorityArn=arn, CertificateArn=issued["CertificateArn"])
    manager.import_certificate_authority_certificate(
        CertificateAuthorityArn=arn, Certificate=own["Certificate"].encode()
    )
    assert len(await opened("aws_pca", config).roots()) == 1  # type: ignore[arg-type]
    message = await refusal("aws_pca", config)
    assert "is no CA (it has no basic constraints)" in message
