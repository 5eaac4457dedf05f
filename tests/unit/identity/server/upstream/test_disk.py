import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nginx_mesh.api.settings import UpstreamAuthority as Settings
from nginx_mesh.api.spiffe import workload_id
from nginx_mesh.identity.common.keys import KEY_TYPES, KeyType, generate_key
from nginx_mesh.identity.common.x509svid import request_svid, spiffe_id_of
from nginx_mesh.identity.server.upstream import MintedCa, UpstreamAuthority, UpstreamError, open_upstream
from nginx_mesh.identity.server.upstream.calls import BlockingCalls
from tests.unit.identity.chains import PURPOSES, openssl_verify

from .pki import DAY, NOW, Ca, assert_openssl_accepts, bundle_pem, go_verify, key_usage, make_ca, request, svid_chain

ROOT = make_ca("root")
MIDDLE = make_ca("middle", ROOT, path_length=2)
GIVEN = make_ca("given", MIDDLE, path_length=1)
OURS = request()


@dataclass
class Disk:
    """A `disk` authority, its files, and the clock it looks at."""

    directory: Path
    bundle: bool = True
    now: float = NOW
    authority: UpstreamAuthority = field(init=False)

    def __post_init__(self) -> None:
        config = {"cert_file_path": str(self.directory / "ca.pem"), "key_file_path": str(self.directory / "ca.key")}
        if self.bundle:
            config["bundle_file_path"] = str(self.directory / "roots.pem")
        settings = Settings(api_version="v1", upstream_authority="disk", config=config)
        self.authority = open_upstream(settings, clock=lambda: self.now)

    def write(self, certificates: str, key: str, roots: str = "") -> None:
        (self.directory / "ca.pem").write_text(certificates)
        (self.directory / "ca.key").write_text(key)
        (self.directory / "ca.key").chmod(0o600)
        (self.directory / "roots.pem").write_text(roots)

    async def mint(self, end: float = NOW + 3600) -> MintedCa:
        return await self.authority.mint_ca(OURS.csr, NOW - 300, end)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path)
    made.write(GIVEN.pem + MIDDLE.pem, GIVEN.key_pem, ROOT.pem)
    return made


async def test_below_an_intermediate_the_chain_leads_up_to_the_bundles_root(disk: Disk, tmp_path: Path) -> None:
    minted = await disk.mint()
    assert minted.chain[1:] == (GIVEN.certificate, MIDDLE.certificate)
    assert minted.roots == (ROOT.certificate,)
    assert await disk.authority.roots() == (ROOT.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)


async def test_what_is_signed_is_what_was_asked_for_cut_to_the_given_cas_life(disk: Disk) -> None:
    own = (await disk.mint(end=NOW + 365 * DAY)).chain[0]
    assert own.subject == OURS.csr.subject
    assert own.public_key() == OURS.key.public_key()
    assert str(spiffe_id_of(own)) == "spiffe://example.org"
    assert own.not_valid_before_utc.timestamp() == NOW - 300
    assert own.not_valid_after_utc == GIVEN.certificate.not_valid_after_utc
    constraints = own.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(True, 0))


async def test_a_self_signed_ca_needs_no_bundle(tmp_path: Path) -> None:
    disk = Disk(tmp_path, bundle=False)
    disk.write(ROOT.pem, ROOT.key_pem)
    minted = await disk.mint()
    assert len(minted.chain) == 1
    assert minted.roots == (ROOT.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)


async def test_without_a_bundle_the_certificate_file_may_hold_the_chain_and_its_root(tmp_path: Path) -> None:
    disk = Disk(tmp_path, bundle=False)
    disk.write(GIVEN.pem + MIDDLE.pem + ROOT.pem, GIVEN.key_pem)
    assert_openssl_accepts(tmp_path, await disk.mint(), OURS.key)


async def test_a_bundle_may_hold_intermediates_and_more_roots(disk: Disk, tmp_path: Path) -> None:
    other = make_ca("other root")
    over = make_ca("old root", end=NOW - 1)
    disk.write(GIVEN.pem, GIVEN.key_pem, MIDDLE.pem + ROOT.pem + other.pem + over.pem)
    minted = await disk.mint()
    assert minted.roots == (ROOT.certificate, other.certificate)
    assert_openssl_accepts(tmp_path, minted, OURS.key)


WRONG: dict[str, tuple[Callable[[Disk], None], str]] = {
    "another key": (
        lambda disk: disk.write(GIVEN.pem + MIDDLE.pem, MIDDLE.key_pem, ROOT.pem),
        r"config\.key_file_path .*ca\.key: is not the key of the first certificate in config\.cert_file_path",
    ),
    "expired": (
        lambda disk: write_ca(disk, make_ca("given", ROOT, end=NOW - 1)),
        r"config\.cert_file_path .*ca\.pem: \"CN=given\" expired at",
    ),
    "not yet valid": (lambda disk: write_ca(disk, make_ca("given", ROOT, start=NOW + DAY)), "is not valid before"),
    "no CA": (lambda disk: write_ca(disk, make_ca("given", ROOT, ca=False)), '"CN=given" is no CA'),
    "path length": (
        lambda disk: write_ca(disk, make_ca("given", ROOT, path_length=0)),
        '"CN=given" has path length 0; the CAs below it need at least 1',
    ),
    "usage": (
        lambda disk: write_ca(disk, make_ca("given", ROOT, usage=key_usage(crl_sign=True))),
        "may not sign certificates",
    ),
    "key type": (
        lambda disk: write_ca(disk, make_ca("given", ROOT, key=ec.generate_private_key(ec.SECP521R1()))),
        r"ca\.key: .*not one of ec-p256",
    ),
    "missing chain": (
        lambda disk: disk.write(GIVEN.pem, GIVEN.key_pem, ROOT.pem),
        'its issuer "CN=middle" is missing from the chain and the roots',
    ),
    "other roots": (
        lambda disk: disk.write(GIVEN.pem + MIDDLE.pem, GIVEN.key_pem, make_ca("root").pem),
        'its issuer "CN=root" did not sign it',
    ),
    "bundle without root": (
        lambda disk: disk.write(GIVEN.pem + MIDDLE.pem, GIVEN.key_pem, MIDDLE.pem),
        r"config\.bundle_file_path .*roots\.pem: holds no root",
    ),
    "no certificate": (lambda disk: disk.write("", GIVEN.key_pem, ROOT.pem), "is not certificates in PEM"),
    "no key": (lambda disk: disk.write(GIVEN.pem, "secret-text", ROOT.pem), "not a private key in unencrypted PEM"),
    "no bundle": (lambda disk: disk.write(GIVEN.pem, GIVEN.key_pem, ""), r"bundle_file_path .*is not certificates"),
    "gone": (
        lambda disk: (disk.directory / "ca.key").unlink(),
        r"config\.key_file_path .*ca\.key: cannot be read: No such file",
    ),
}


def write_ca(disk: Disk, ca: Ca) -> None:
    key = ca.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    disk.write(ca.pem, key.decode(), ROOT.pem)


@pytest.mark.parametrize("case", list(WRONG))
async def test_files_that_do_not_fit_are_refused_and_named(case: str, disk: Disk) -> None:
    spoil, reason = WRONG[case]
    spoil(disk)
    with pytest.raises(UpstreamError, match=reason) as caught:
        await disk.mint()
    assert str(caught.value).startswith(f"upstream authority disk ({disk.directory / 'ca.pem'}): signing a CA: ")
    assert "secret-text" not in str(caught.value)
    with pytest.raises(UpstreamError, match=reason):
        await disk.authority.roots()


@pytest.mark.parametrize("case", list(WRONG))
async def test_a_change_for_the_worse_is_complained_about_once_and_what_was_stays(
    case: str, disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await disk.mint()
    spoil, _ = WRONG[case]
    spoil(disk)
    with caplog.at_level(logging.WARNING):
        minted = await disk.mint()
        await disk.authority.roots()
    assert_openssl_accepts(tmp_path, minted, OURS.key)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "what they held before stays in use" in record.getMessage()
    caplog.clear()
    disk.write(GIVEN.pem + MIDDLE.pem, GIVEN.key_pem, ROOT.pem)
    await disk.mint()
    spoil(disk)
    await disk.mint()
    assert len(caplog.records) == 1  # files that were well in between are news again


async def test_a_change_for_the_better_is_taken_up(disk: Disk, tmp_path: Path) -> None:
    await disk.mint()
    root = make_ca("new root")
    given = make_ca("given", root, path_length=1)
    disk.write(given.pem, given.key_pem, root.pem + ROOT.pem)
    assert await disk.authority.roots() == (root.certificate, ROOT.certificate)
    minted = await disk.mint()
    assert minted.chain[1:] == (given.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)


async def test_files_replaced_one_after_the_other_are_taken_up_when_both_are_there(disk: Disk) -> None:
    await disk.mint()
    given = make_ca("given", ROOT)
    (disk.directory / "ca.pem").write_text(given.pem)
    assert (await disk.mint()).chain[1] == GIVEN.certificate
    (disk.directory / "ca.key").write_text(given.key_pem)
    assert (await disk.mint()).chain[1] == given.certificate


async def test_a_ca_that_expires_while_we_run_signs_no_more(disk: Disk) -> None:
    await disk.mint()
    disk.now = NOW + 31 * DAY
    with pytest.raises(UpstreamError, match=r"signing a CA: (validity is empty|there is no root)"):
        await disk.authority.mint_ca(OURS.csr, disk.now - 300, disk.now + 3600)


async def test_a_request_for_no_ca_of_ours_is_refused(disk: Disk) -> None:
    leaf = request_svid(OURS.key, workload_id("example.org", "a", "b"))
    with pytest.raises(UpstreamError, match="is a workload's ID; a CA carries its trust domain's"):
        await disk.authority.mint_ca(leaf, NOW, NOW + 60)


async def test_a_key_that_everybody_can_read_is_warned_of(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    (disk.directory / "ca.key").chmod(0o644)
    await disk.mint()
    assert "a private key that everybody can read; make its mode 0600" in caplog.text


async def test_no_secret_is_in_the_string_of_anything(disk: Disk) -> None:
    await disk.mint()
    body = "".join(GIVEN.key_pem.splitlines()[1:-1])
    assert body[:40] not in repr(vars(disk.authority)["_ca"])


async def test_a_call_that_hangs_ends_in_time_and_the_next_is_told() -> None:
    release = threading.Event()
    calls = BlockingCalls("upstream authority test", seconds=0.2)
    with pytest.raises(UpstreamError, match=r"^upstream authority test: waiting: no answer within 0\.2 s$"):
        await calls.run("waiting", lambda: release.wait(60))
    with pytest.raises(UpstreamError, match="an earlier request still has no end"):
        await calls.run("waiting", lambda: True)
    release.set()
    for _ in range(500):
        try:
            assert await calls.run("waiting", lambda: True)
            break
        except UpstreamError:
            await asyncio.sleep(0.01)
    else:
        pytest.fail("calls never work again")


async def test_what_a_library_raises_is_told_by_type_without_its_words() -> None:
    def fail() -> None:
        raise ZeroDivisionError("token s3cr3t")

    with pytest.raises(UpstreamError, match=r"failed unexpectedly \(builtins.ZeroDivisionError\)") as caught:
        await BlockingCalls("upstream authority test").run("dividing", fail)
    assert caught.value.__cause__ is None
    assert "s3cr3t" not in str(caught.value)


COMBINATIONS = [(given, ours) for given in KEY_TYPES for ours in KEY_TYPES if "rsa-4096" not in (given, ours)] + [
    ("rsa-4096", "rsa-4096")
]


async def minted_with(given: KeyType, ours: KeyType, directory: Path) -> tuple[MintedCa, str]:
    root = make_ca("root", key=generate_key(given))
    middle = make_ca("middle", root, path_length=1, key=generate_key(given))
    disk = Disk(directory)
    disk.write(middle.pem, middle.key_pem, root.pem)
    wanted = request(generate_key(ours))
    minted = await disk.authority.mint_ca(wanted.csr, NOW - 300, NOW + 3600)
    return minted, svid_chain(minted, wanted.key)


@pytest.mark.parametrize(("given", "ours"), COMBINATIONS)
async def test_openssl_accepts_chains_of_every_key_type(given: KeyType, ours: KeyType, tmp_path: Path) -> None:
    minted, chain = await minted_with(given, ours, tmp_path)
    for purpose in PURPOSES:
        assert openssl_verify(tmp_path, chain, bundle_pem(minted.roots), purpose, NOW) == ""


@pytest.mark.skipif(
    shutil.which("go") is None, reason="openssl verifies the same chains; Go only where it is installed"
)
async def test_go_where_installed_accepts_chains_of_every_key_type(tmp_path: Path) -> None:
    chains = []
    for given, ours in COMBINATIONS:
        minted, chain = await minted_with(given, ours, tmp_path)
        chains.append((chain, bundle_pem(minted.roots)))
    assert go_verify(tmp_path, chains) == ""
    wrong = [(chains[0][0], chains[1][1])]
    assert "certificate signed by unknown authority" in go_verify(tmp_path, wrong)
