import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from nginx_mesh.identity.common.keymanager import open_key_manager
from nginx_mesh.identity.server.bundlekeeper import BundleKeeper
from nginx_mesh.identity.server.ca import CaSettings
from nginx_mesh.identity.server.camanager import CaManager
from nginx_mesh.identity.server.datastore import IN_MEMORY, Datastore, open_datastore
from nginx_mesh.identity.server.upstream import MintedCa, UpstreamError
from nginx_mesh.identity.server.upstream.checks import accept

from .upstream.pki import answer, make_ca

ROOT = make_ca("root")


class Approval:
    """An upstream that signs what it was asked for before, as one does whose requests are approved by somebody."""

    def __init__(self) -> None:
        self.asked: list[x509.CertificateSigningRequest] = []

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        self.asked.append(csr)
        if self.asked.count(csr) < 3:
            raise UpstreamError("not approved yet")
        certificate = answer(csr, ROOT, start=not_before, end=not_after)
        return accept(csr, certificate, (), (ROOT.certificate,), time.time())

    async def roots(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture
def datastore(tmp_path: Path) -> Iterator[Datastore]:
    opened = open_datastore(IN_MEMORY, tmp_path)
    yield opened
    opened.close()


async def test_upstream_is_asked_for_the_same_ca_until_it_signs_and_then_for_another(
    datastore: Datastore, tmp_path: Path
) -> None:
    now, upstream = time.time(), Approval()
    manager = CaManager(
        CaSettings("example.org", "ec-p256", 86_400, "approval"),
        upstream,
        key_manager=open_key_manager("memory", tmp_path),
        datastore=datastore,
        bundles=BundleKeeper(datastore, "example.org", lambda: now),
        server_id="server",
        clock=lambda: now,
    )
    for _ in range(2):
        with pytest.raises(UpstreamError, match="not approved yet"):
            await manager.turn()
        now += 61
    await manager.turn()
    current = manager.cas.current
    assert current is not None
    assert current.key is not None
    assert current.key.public_key() == current.certificate.public_key()
    assert upstream.asked == [upstream.asked[0]] * 3
    with pytest.raises(UpstreamError, match="not approved yet"):
        await manager.rotate(overlap=10)
    assert upstream.asked[-1].public_key() != upstream.asked[0].public_key()
