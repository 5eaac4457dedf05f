import pytest
from cryptography import x509

from nginx_mesh.identity.common.client import RefusedError
from nginx_mesh.identity.common.ids import agent_spiffe_id, server_spiffe_id
from nginx_mesh.identity.server.admission import Admission
from nginx_mesh.identity.server.attestation import Attested
from tests.unit.identity.authorities import AGENT, WEB, FakeClock, authority, csr, started

ME = str(AGENT)


async def attested(admission: Admission, name: str = "node-1") -> x509.Certificate:
    spiffe_id = agent_spiffe_id("example.org", name)
    return (await admission.attest(Attested(str(spiffe_id)), "join_token", csr(None)))[0]


async def test_an_agent_is_admitted_by_its_newest_svid_and_the_one_before_until_that_is_used() -> None:
    async with started(authority(FakeClock())) as server:
        admission = Admission(server)
        first = await attested(admission)
        node = await admission.admit(AGENT, first.serial_number)
        (lost, *_) = await admission.renew(node, csr(None))  # its answer never arrives
        node = await admission.admit(AGENT, first.serial_number)
        (second, *_) = await admission.renew(node, csr(None))
        await admission.admit(AGENT, first.serial_number)
        with pytest.raises(RefusedError, match=r"not the one that .*node-1 was given last"):
            await admission.admit(AGENT, lost.serial_number)
        await admission.admit(AGENT, second.serial_number)
        with pytest.raises(RefusedError, match="not the one that"):
            await admission.admit(AGENT, first.serial_number)
        again = await attested(admission)
        with pytest.raises(RefusedError, match="not the one that"):
            await admission.admit(AGENT, second.serial_number)
        await admission.admit(AGENT, again.serial_number)


async def test_a_ban_is_not_undone_by_what_the_agent_was_about_to_do() -> None:
    async with started(authority(FakeClock())) as server:
        admission = Admission(server)
        leaf = await attested(admission)
        node = await admission.admit(AGENT, leaf.serial_number)
        server.datastore.ban_node(ME, True)
        with pytest.raises(RefusedError, match="banned or evicted just now"):
            await admission.renew(node, csr(None))
        with pytest.raises(RefusedError, match="is banned"):
            await admission.admit(AGENT, leaf.serial_number)
        with pytest.raises(RefusedError, match="is banned"):
            await attested(admission)
        server.datastore.ban_node(ME, False)
        node = await admission.admit(AGENT, leaf.serial_number)
        server.datastore.delete_node(ME)
        with pytest.raises(RefusedError, match="banned or evicted just now"):
            await admission.renew(node, csr(None))
        with pytest.raises(RefusedError, match="is not an attested agent"):
            await admission.admit(AGENT, leaf.serial_number)


async def test_only_agents_are_admitted() -> None:
    async with started(authority(FakeClock())) as server:
        admission = Admission(server)
        leaf = await attested(admission)
        for spiffe_id in (WEB, server_spiffe_id("example.org"), agent_spiffe_id("example.org", "node-2")):
            with pytest.raises(RefusedError, match="is not an attested agent"):
                await admission.admit(spiffe_id, leaf.serial_number)
        with pytest.raises(RefusedError, match="csr: it asks for the name"):
            await admission.renew(await admission.admit(AGENT, leaf.serial_number), csr(WEB))
