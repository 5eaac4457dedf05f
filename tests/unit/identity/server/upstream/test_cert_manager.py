import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import incluster_config

from nginx_mesh.api.settings import UpstreamAuthority as Settings
from nginx_mesh.identity.server.upstream import MintedCa, UpstreamAuthority, UpstreamError, cert_manager, open_upstream
from tests.unit.identity.server.kubernetes import TOKEN, write_kubeconfig

from .cert_manager_server import (
    ISSUER,
    NAMESPACE,
    PREFIX,
    FakeCertManager,
    left_behind,
)
from .pki import WRONG_ANSWERS, assert_openssl_accepts, csr_pem, make_ca, request

OURS = request()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cert_manager, "_POLL_SECONDS", 0.05)
    for name in ("HTTPS_PROXY", "https_proxy", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[FakeCertManager]:
    async with FakeCertManager().running(tmp_path) as server:
        yield server


def opened(manager: FakeCertManager, **more: Any) -> UpstreamAuthority:
    config = {"namespace": NAMESPACE, "issuer_name": ISSUER, "kube_config_file": str(manager.kubeconfig), **more}
    return open_upstream(Settings(api_version="v1", upstream_authority="cert-manager", config=config))


async def mint(authority: UpstreamAuthority) -> MintedCa:
    now = time.time()
    return await authority.mint_ca(OURS.csr, now - 300, now + 3600)


async def refusal(manager: FakeCertManager, **more: Any) -> str:
    started = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        await mint(opened(manager, **more))
    assert time.monotonic() - started < 30
    assert TOKEN not in str(caught.value)
    assert str(caught.value).startswith("upstream authority cert-manager (")
    return str(caught.value)


async def test_an_issuer_signs_and_its_request_is_gone_afterwards(manager: FakeCertManager, tmp_path: Path) -> None:
    authority = opened(manager)
    minted = await mint(authority)
    assert minted.chain[1:] == (manager.issuer.certificate,)
    assert minted.roots == (manager.root.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)
    assert manager.objects == {}
    assert await authority.roots() is None


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (("Denied", "True", "policy", "not for you"), "is Denied=True, policy: not for you"),
        (("InvalidRequest", "True", "CSR", "odd"), "is InvalidRequest=True, CSR: odd"),
        (("Ready", "False", "Failed", "signing failed"), "is Ready=False, Failed: signing failed"),
        (("Ready", "False", "Denied", "denied"), "is Ready=False, Denied: denied"),
    ],
)
async def test_a_request_that_fails_is_told_and_gone(
    condition: tuple[str, str, str, str], said: str, manager: FakeCertManager
) -> None:
    manager.conditions = [dict(zip(("type", "status", "reason", "message"), condition, strict=True))]
    assert said in await refusal(manager)
    assert manager.objects == {}
    manager.conditions = None
    await mint(opened(manager))


async def test_a_request_that_waits_for_approval_is_taken_up_again(
    manager: FakeCertManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cert_manager, "_SIGN_SECONDS", 0.2)
    manager.conditions = [{"type": "Ready", "status": "False", "reason": "Pending", "message": "wait"}]
    message = await refusal(manager)
    assert (
        "is not signed after 0.2 s (Ready=False Pending); it stays, and the next attempt looks at it again" in message
    )
    (name,) = manager.objects
    manager.conditions = None
    await mint(opened(manager))
    assert manager.asked.count(f"DELETE {PREFIX}/{name}") == 1
    assert manager.objects == {}


async def test_a_request_that_nobody_waits_for_any_longer_is_deleted(
    manager: FakeCertManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cert_manager, "_SIGN_SECONDS", 0.2)
    manager.ignored = 1000
    authority = opened(manager)
    now = time.time()
    for _ in range(3):
        with pytest.raises(UpstreamError, match="is not signed after"):
            await authority.mint_ca(request().csr, now - 300, now + 3600)
        assert len(manager.objects) == 1


async def test_without_cert_manager_nothing_is_signed(
    manager: FakeCertManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cert_manager, "_SIGN_SECONDS", 0.2)
    manager.ignored = 1000
    assert "no conditions: is cert-manager running?" in await refusal(manager)


async def test_an_issuer_that_is_not_there_is_said_to_be_pending(
    manager: FakeCertManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cert_manager, "_SIGN_SECONDS", 0.2)
    message = await refusal(manager, issuer_name="other", issuer_kind="ClusterIssuer")
    assert message.startswith(f"upstream authority cert-manager (ClusterIssuer other, {NAMESPACE}): signing a CA: ")
    assert "Ready=False Pending" in message


async def test_only_old_requests_of_the_same_trust_domain_are_cleaned_up(manager: FakeCertManager) -> None:
    now = time.time()
    manager.objects = {
        "old": left_behind("old", "example.org", now - 7200),
        "recent": left_behind("recent", "example.org", now - 60),
        "foreign": left_behind("foreign", "evil.org", now - 7200),
    }
    await mint(opened(manager))
    assert set(manager.objects) == {"recent", "foreign"}


async def test_what_cannot_be_cleaned_up_is_warned_of_and_no_more(
    manager: FakeCertManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.forbidden = ("DELETE",)
    await mint(opened(manager))
    assert "cannot be deleted (ForbiddenException)" in caplog.text or "cannot be deleted (ApiException)" in caplog.text


async def test_a_request_by_our_name_that_is_not_ours_is_left_alone(manager: FakeCertManager) -> None:
    manager.forbidden = ("DELETE",)
    await mint(opened(manager))
    (name,) = manager.objects
    manager.objects[name]["spec"]["request"] = base64.b64encode(csr_pem(request().csr).encode()).decode()
    manager.forbidden = ()
    assert f"CertificateRequest {name} is not ours" in await refusal(manager)
    assert name in manager.objects


@pytest.mark.parametrize(("wrong", "reason"), WRONG_ANSWERS, ids=[reason for _, reason in WRONG_ANSWERS])
async def test_a_wrong_answer_is_refused(wrong: dict[str, Any], reason: str, manager: FakeCertManager) -> None:
    manager.wrong = wrong
    assert reason in await refusal(manager)


async def test_an_answer_of_another_ca_is_refused(manager: FakeCertManager) -> None:
    manager.sign_with = make_ca("another issuer", make_ca("another root"))
    assert '"CN=another root" is missing from the chain and the roots' in await refusal(manager)


@pytest.mark.parametrize(
    ("ca", "reason"),
    [
        ("", "the answer has no status.ca: this kind of issuer does not tell its root"),
        ("hello", "status.ca is not certificates in PEM"),
        (make_ca("half way", make_ca("top")).pem, 'status.ca is "CN=half way", which is no root'),
    ],
)
async def test_an_answer_without_a_root_is_refused(ca: str, reason: str, manager: FakeCertManager) -> None:
    manager.status_ca = ca
    assert reason in await refusal(manager)


@pytest.mark.parametrize("garbage", ["[]", "{}", '{"metadata": {"name": "x"}, "spec": {"request": "%"}}'])
async def test_an_answer_that_is_none_is_refused(garbage: str, manager: FakeCertManager) -> None:
    manager.garbage = garbage
    assert "the answer is not one of cert-manager" in await refusal(manager)


async def test_wrong_credentials_are_refused(manager: FakeCertManager) -> None:
    text = manager.kubeconfig.read_text().replace(TOKEN, "s3cr3t-but-wrong")
    manager.kubeconfig.write_text(text)
    message = await refusal(manager)
    assert "the cluster refuses: 401 Unauthorized (are its credentials valid?)" in message
    assert "s3cr3t" not in message


async def test_a_missing_right_is_named(manager: FakeCertManager) -> None:
    manager.forbidden = ("POST",)
    message = await refusal(manager)
    assert "the cluster refuses: 403 certificaterequests.cert-manager.io is forbidden" in message
    assert "it needs a Role that allows create, get, list and delete of certificaterequests" in message


async def test_a_cluster_without_cert_manager_is_told(manager: FakeCertManager) -> None:
    message = await refusal(manager, namespace="other")
    assert "is cert-manager installed, and the namespace there?" in message


async def test_a_cluster_below_another_ca_is_refused(manager: FakeCertManager) -> None:
    address = yaml.safe_load(manager.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    write_kubeconfig(manager.kubeconfig, address, make_ca("other").pem)
    message = await refusal(manager)
    assert "the cluster cannot be reached: " in message
    assert "certificate verify failed" in message
    assert manager.asked == []


async def test_a_cluster_that_is_not_there_fails_soon(manager: FakeCertManager) -> None:
    write_kubeconfig(manager.kubeconfig, "https://127.0.0.1:1", make_ca("other").pem)
    message = await refusal(manager)
    assert "the cluster cannot be reached: " in message
    assert "refused" in message


async def test_a_cluster_that_does_not_answer_fails_in_time(
    manager: FakeCertManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cert_manager, "TIMEOUT", (0.3, 0.3))

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silence, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        write_kubeconfig(manager.kubeconfig, f"http://127.0.0.1:{port}", make_ca("other").pem)
        assert "no answer within" in await refusal(manager)


@pytest.mark.parametrize("text", ["", "- s3cr3t", "token: s3cr3t: {", "apiVersion: v1\nkind: Config\n", "{users: 7}"])
async def test_a_kubeconfig_that_is_none_is_refused(text: str, manager: FakeCertManager) -> None:
    manager.kubeconfig.write_text(text)
    message = await refusal(manager)
    assert "kubeconfig" in message
    assert "s3cr3t" not in message


async def test_a_kubeconfig_that_is_gone_is_named(manager: FakeCertManager) -> None:
    manager.kubeconfig.unlink()
    message = await refusal(manager)
    assert f"config.kube_config_file {manager.kubeconfig}: cannot be read: No such file" in message


async def test_outside_of_a_cluster_there_has_to_be_a_kubeconfig(manager: FakeCertManager) -> None:
    message = await refusal(manager, kube_config_file=None)
    assert "there is no config.kube_config_file, and this is no pod" in message


async def test_a_long_trust_domain_fits_a_label(manager: FakeCertManager) -> None:
    long = ".".join(["a" * 50] * 3)
    ours = request(trust_domain=long)
    now = time.time()
    await opened(manager).mint_ca(ours.csr, now - 300, now + 3600)


async def test_in_a_pod_its_service_account_is_who_asks(
    manager: FakeCertManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = yaml.safe_load(manager.kubeconfig.read_text())["clusters"][0]["cluster"]
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    host, _, port = cluster["server"].removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    assert (await mint(opened(manager, kube_config_file=None))).roots == (manager.root.certificate,)
