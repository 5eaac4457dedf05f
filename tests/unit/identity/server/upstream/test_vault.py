"""The vault plugin, against a server of ours that keeps to Vault's wire contract, and what both can do against the
real one as well, where `vault` is on PATH."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.settings import UpstreamAuthority as Settings
from nginx_mesh.identity.server.upstream import MintedCa, UpstreamAuthority, UpstreamError, open_upstream
from nginx_mesh.identity.server.upstream import vault as plugin
from nginx_mesh.identity.server.upstream.vault import VaultAuthority

from .pki import DAY, WRONG_ANSWERS, assert_openssl_accepts, make_ca, request
from .vault_server import FakeVault, Site, our_vault, real_vault

OURS = request()
VAULT = shutil.which("vault")


@pytest.fixture(params=["ours", "real"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "ours":
        async with our_vault(tmp_path) as made:
            yield made
    elif VAULT is None:
        pytest.skip("vault is not on PATH; the server of ours stands in for it")
    else:
        async with real_vault(tmp_path, VAULT) as made:
            yield made


@pytest.fixture
async def ours(tmp_path: Path) -> AsyncIterator[Site]:
    async with our_vault(tmp_path) as made:
        yield made


def fake(site: Site) -> FakeVault:
    assert site.ours is not None
    return site.ours


def opened(config: dict[str, Any]) -> UpstreamAuthority:
    return open_upstream(Settings(api_version="v1", upstream_authority="vault", config=config))


async def mint(authority: UpstreamAuthority, life: float = 3600) -> MintedCa:
    now = time.time()
    return await authority.mint_ca(OURS.csr, now - 300, now + life)


async def token_for(site: Site, seconds: int = 0, signs: bool = True) -> str:
    return await asyncio.to_thread(site.new_token, seconds, signs)


async def refusal(config: dict[str, Any], *secrets: str) -> str:
    authority = opened(config)
    started = time.monotonic()
    try:
        with pytest.raises(UpstreamError) as caught:
            await mint(authority)
    finally:
        await authority.close()
    assert time.monotonic() - started < 30
    for secret in secrets:
        assert secret not in str(caught.value)
    assert str(caught.value).startswith(f"upstream authority vault ({config['vault_addr']}, mount ")
    return str(caught.value)


@pytest.mark.parametrize("method", ["token", "approle", "cert"])
async def test_each_way_to_log_in_gets_a_ca_that_openssl_follows_to_the_root(
    method: str, site: Site, tmp_path: Path
) -> None:
    match method:
        case "token":
            config = site.token(await token_for(site))
        case "approle":
            config = site.approle()
        case _:
            config = site.cert()
    authority = opened(config)
    try:
        minted = await mint(authority)
        assert minted.chain[1:] == (site.certificates.issuer.certificate,)
        assert minted.roots == (site.certificates.root.certificate,)
        assert_openssl_accepts(tmp_path, minted, OURS.key, time.time())
        own = minted.chain[0]
        assert own.subject.rfc4514_string() == OURS.csr.subject.rfc4514_string()
        assert abs(own.not_valid_after_utc.timestamp() - (time.time() + 3600)) < 60
        assert abs(own.not_valid_before_utc.timestamp() - (time.time() - 300)) < 60
        assert await authority.roots() == (site.certificates.root.certificate,)
    finally:
        await authority.close()


async def test_a_token_that_is_none_is_refused_with_what_to_do(site: Site) -> None:
    message = await refusal(site.token("hvs.s3cr3t"), "s3cr3t")
    assert "Vault refuses: " in message
    assert "permission denied" in message
    assert "is the credential valid, and does its policy allow update on pki/root/sign-intermediate?" in message


async def test_a_token_without_the_right_is_refused(site: Site) -> None:
    assert "permission denied" in await refusal(site.token(await token_for(site, signs=False)))


async def test_a_wrong_secret_id_is_refused(site: Site) -> None:
    assert "invalid role or secret ID" in await refusal(site.approle("s3cr3t"), "s3cr3t")


async def test_a_strangers_client_certificate_is_refused(site: Site) -> None:
    message = await refusal(site.cert(stranger=True))
    assert "Vault refuses: " in message or "cannot be reached" in message or "TLS fails" in message


async def test_an_engine_that_is_not_there_is_said_to_be_missing(site: Site) -> None:
    config = site.token(await token_for(site)) | {"pki_mount_point": "other"}
    message = await refusal(config)
    assert "no handler for route" in message or "permission denied" in message


async def test_tls_below_another_ca_is_refused(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text(make_ca("other").pem)
    message = await refusal(site.approle() | {"ca_cert_path": str(other)})
    assert "TLS fails" in message
    assert "config.ca_cert_path must hold the CA of Vault's certificate" in message


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("method", ["token", "approle", "cert"])
async def test_insecure_skip_verify_does_and_is_warned_of(
    method: str, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(make_ca("other").pem)
    config = {"token": site.token(await token_for(site)), "approle": site.approle(), "cert": site.cert()}[method]
    authority = opened(config | {"ca_cert_path": str(other), "insecure_skip_verify": True})
    try:
        assert (await mint(authority)).roots == (site.certificates.root.certificate,)
    finally:
        await authority.close()
    assert "its certificate is not checked (insecure_skip_verify)" in caplog.text


async def test_a_token_is_renewed_for_as_long_as_we_run(site: Site) -> None:
    token = await token_for(site, seconds=4)
    authority = opened(site.token(token))
    try:
        await authority.roots()
        await asyncio.sleep(6)
        await mint(authority)
    finally:
        await authority.close()


async def test_a_login_whose_token_is_gone_is_repeated(site: Site) -> None:
    authority = opened(site.approle())
    assert isinstance(authority, VaultAuthority)
    try:
        await mint(authority)
        session = authority._session
        assert session is not None
        await asyncio.to_thread(site.revoke, session.client.token)
        await mint(authority)
    finally:
        await authority.close()


async def test_a_token_that_was_revoked_is_not_used_for_ever(site: Site) -> None:
    token = await token_for(site)
    authority = opened(site.token(token))
    try:
        await mint(authority)
        await asyncio.to_thread(site.revoke, token)
        for _ in range(2):
            with pytest.raises(UpstreamError, match="permission denied"):
                await mint(authority)
    finally:
        await authority.close()


async def test_a_ca_that_shall_outlive_vaults_ends_with_it(site: Site) -> None:
    authority = opened(site.approle())
    try:
        minted = await mint(authority, life=365 * DAY)
        assert minted.limit <= site.certificates.issuer.certificate.not_valid_after_utc.timestamp()
    finally:
        await authority.close()


# From here on: what only a server that does as we say can show.


async def test_the_namespace_is_sent_along(ours: Site) -> None:
    message = await refusal(ours.approle() | {"namespace": "teams/other"})
    assert "no handler for route" in message
    assert "is the engine mounted there, and in this namespace?" in message


async def test_a_sealed_vault_is_said_to_be_sealed_and_used_again_afterwards(ours: Site) -> None:
    authority = opened(ours.approle())
    fake(ours).sealed = True
    try:
        with pytest.raises(UpstreamError, match=r"signing a CA: Vault refuses: Vault is sealed"):
            await mint(authority)
        fake(ours).sealed = False
        await mint(authority)
    finally:
        await authority.close()


async def test_one_login_serves_many_requests(ours: Site) -> None:
    authority = opened(ours.approle())
    try:
        for _ in range(3):
            await mint(authority)
    finally:
        await authority.close()
    assert [path for _, path, _ in fake(ours).asked].count("/v1/auth/approle/login") == 1


async def test_whoever_asks_for_the_roots_every_few_seconds_costs_vault_nothing(ours: Site) -> None:
    authority = opened(ours.approle())
    try:
        fake(ours).sealed = True
        with pytest.raises(UpstreamError, match="reading the roots"):
            await authority.roots()
        fake(ours).sealed = False
        for _ in range(3):
            assert await authority.roots() == (ours.certificates.root.certificate,)
    finally:
        await authority.close()
    assert [path for _, path, _ in fake(ours).asked].count("/v1/pki/ca_chain") == 1


async def test_a_login_whose_token_ran_out_is_repeated(ours: Site) -> None:
    fake(ours).login_seconds = 1
    authority = opened(ours.cert())
    try:
        await mint(authority)
        await asyncio.sleep(1.1)
        await mint(authority)
    finally:
        await authority.close()
    assert [path for _, path, _ in fake(ours).asked].count("/v1/auth/cert/login") == 2


async def test_a_renewal_that_fails_is_warned_of_and_tried_again(ours: Site, caplog: pytest.LogCaptureFixture) -> None:
    token = await token_for(ours, seconds=12)
    authority = opened(ours.token(token))
    try:
        await authority.roots()
        fake(ours).sealed = True
        with caplog.at_level(logging.WARNING):
            for _ in range(200):
                if "renewing the token: Vault refuses" in caplog.text:
                    break
                await asyncio.sleep(0.05)
        assert "renewing the token: Vault refuses: Vault is sealed" in caplog.text
        assert token not in caplog.text
        fake(ours).sealed = False
        for _ in range(200):
            if ("POST", "/v1/auth/token/renew-self", {}) in fake(ours).asked[-1:]:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("it was not tried again")
        await mint(authority)
    finally:
        await authority.close()


@pytest.mark.parametrize(("wrong", "reason"), WRONG_ANSWERS, ids=[reason for _, reason in WRONG_ANSWERS])
async def test_a_wrong_answer_is_refused(wrong: dict[str, Any], reason: str, ours: Site) -> None:
    fake(ours).wrong = wrong
    assert reason in await refusal(ours.approle(), ours.secret_id)


async def test_an_answer_of_another_ca_is_refused(ours: Site) -> None:
    fake(ours).chain = [make_ca("company issuing", ours.certificates.root), ours.certificates.root]
    assert 'its issuer "CN=company issuing" did not sign it' in await refusal(ours.approle())


async def test_an_answer_whose_chain_has_no_root_is_refused(ours: Site) -> None:
    fake(ours).chain = [ours.certificates.issuer]
    assert "there is no root certificate" in await refusal(ours.approle())


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"data": null}', '{"data": {"certificate": 7}}', '{"data": {"certificate": "hello"}}', "<html>"],
)
async def test_an_answer_that_is_none_is_refused(body: str, ours: Site) -> None:
    fake(ours).body = body
    assert "the answer is not " in await refusal(ours.approle())


async def test_a_vault_that_does_not_answer_fails_in_time(ours: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "READ_SECONDS", 0.5)
    fake(ours).delay = 60
    assert "signing a CA: no answer within" in await refusal(ours.approle())


async def test_a_vault_that_answers_a_byte_at_a_time_fails_in_time(ours: Site) -> None:
    authority = opened(ours.approle())
    assert isinstance(authority, VaultAuthority)
    authority._calls._seconds = 1
    fake(ours).drip = True
    with pytest.raises(UpstreamError, match="signing a CA: no answer within 1 s"):
        await mint(authority)
    await authority.close()


async def test_a_vault_that_is_not_there_fails_at_once(ours: Site) -> None:
    message = await refusal(ours.approle() | {"vault_addr": "https://127.0.0.1:1"}, ours.secret_id)
    assert "cannot be reached: " in message
    assert "refused" in message


async def test_credentials_do_not_follow_a_redirect_out_of_tls(ours: Site) -> None:
    came: list[bytes] = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        fake(ours).redirect = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert "cannot be reached: " in await refusal(ours.approle(), ours.secret_id)
    assert came == []


async def test_files_are_read_anew_at_login_and_named_when_they_are_gone(ours: Site) -> None:
    ours.certificates.client.key_path.unlink()
    message = await refusal(ours.cert())
    assert f"config.cert_auth.client_key_path {ours.certificates.client.key_path}: cannot be read" in message


async def test_nothing_comes_from_the_environment(ours: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", fake(ours).new_token(0, True))
    monkeypatch.setenv("VAULT_ADDR", "https://127.0.0.1:1")
    authority = opened(ours.approle())
    try:
        await mint(authority)
    finally:
        await authority.close()
    assert fake(ours).login_tokens == [None]


async def test_a_secret_that_vault_quotes_is_blacked_out(ours: Site) -> None:
    fake(ours).echo = True
    message = await refusal(ours.approle(), ours.secret_id)
    assert "cannot make sense of" in message
    assert "<secret>" in message
