import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.tls import client_context, peer_id, server_context
from nginx_mesh.identity.common.workload import X509Svid
from tests.unit.identity import httpserver
from tests.unit.identity.domains import Domain

HOME = Domain()
SERVER = HOME.svid("/server")
CLIENT = HOME.svid("/client")


def only(path: str, domain: str = "example.org") -> Callable[[SpiffeId | None], str | None]:
    expected = SpiffeId(domain, path)
    return lambda peer: None if peer == expected else f"only {expected} is"


def anybody(peer: SpiffeId | None) -> None:
    return None


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[str]:
    """A server that answers with the caller's ID."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(peer_id(request.transport)))

    async with httpserver.serving(answer, context) as address:
        yield f"{address}/"


async def ask(url: str, context: ssl.SSLContext) -> str:
    """Who the server says we are, on a connection of its own."""
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return await response.text()


def server(svid: X509Svid = SERVER, **options: object) -> ssl.SSLContext:
    arguments: dict[str, object] = {"authorise": only("/client")} | options
    return server_context(lambda: svid, HOME.bundle, **arguments)  # type: ignore[arg-type]


def client(svid: X509Svid | None = CLIENT, authorise: object = None) -> ssl.SSLContext:
    identity = (lambda: svid) if svid is not None else None
    return client_context(identity, HOME.bundle, authorise or only("/server"))  # type: ignore[arg-type]


async def test_both_sides_know_each_other() -> None:
    async with serving(server()) as url:
        assert await ask(url, client()) == "spiffe://example.org/client"
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(url), ssl=client())
        assert peer_id(writer.transport) == SERVER.spiffe_id
        writer.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].strip("/"))


def forged(svid: X509Svid, **changes: object) -> X509Svid:
    """A leaf of the same CA and for the same key with extensions that our own code would not sign; None removes."""
    old = svid.chain[0]
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(svid.key.public_key())
        .serial_number(77)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        value = changes.get(type(extension.value).__name__, extension.value)
        if isinstance(value, x509.ExtensionType):
            builder = builder.add_extension(value, critical=extension.critical)
    return X509Svid(svid.spiffe_id, (builder.sign(HOME.signer.key, hashes.SHA256()),), svid.key)


def uris(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])


def key_usage(**changes: bool) -> x509.KeyUsage:
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    names += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**(dict.fromkeys(names, False) | {"digital_signature": True} | changes))


BAD_PEERS = {
    "another ID": (HOME.svid("/other"), "only spiffe://example.org"),
    "expired": (HOME.svid("/client", since=-300, until=-1), "certificate has expired"),
    "not yet valid": (HOME.svid("/client", since=1800), "certificate is not yet valid"),
    "of a CA that we do not know": (Domain().svid("/client"), "unable to get local issuer certificate"),
    "of another trust domain": (Domain("elsewhere.test").svid("/client"), "unable to get local issuer certificate"),
    "of another trust domain, signed by ours": (
        forged(CLIENT, SubjectAlternativeName=uris("spiffe://elsewhere.test/client")),
        "spiffe://elsewhere.test/client is not of the trust domain example.org",
    ),
    "two URIs": (
        forged(CLIENT, SubjectAlternativeName=uris("spiffe://example.org/client", "spiffe://example.org/admin")),
        "certificate has 2 URI names",
    ),
    "no URI": (
        forged(CLIENT, SubjectAlternativeName=x509.SubjectAlternativeName([x509.DNSName("client")])),
        "certificate has 0 URI names",
    ),
    "a URI that is no SPIFFE ID": (forged(CLIENT, SubjectAlternativeName=uris("https://a.test")), "does not start"),
    "no name at all": (forged(CLIENT, SubjectAlternativeName=None), "no subject alternative name"),
    "no path": (forged(CLIENT, SubjectAlternativeName=uris("spiffe://example.org")), "is a trust domain"),
    "a CA of ours": (X509Svid(SpiffeId("example.org"), (HOME.signer.certificate,), HOME.signer.key), ""),
    "cA": (forged(CLIENT, BasicConstraints=x509.BasicConstraints(True, None)), ""),
    "may sign certificates": (forged(CLIENT, KeyUsage=key_usage(key_cert_sign=True)), ""),
    "may sign CRLs": (forged(CLIENT, KeyUsage=key_usage(crl_sign=True)), "is not that of a leaf"),
    "no key usage": (forged(CLIENT, KeyUsage=None), "has no key usage"),
}


@pytest.mark.parametrize("peer", BAD_PEERS)
async def test_server_refuses_client_before_it_reads_a_request(peer: str, caplog: pytest.LogCaptureFixture) -> None:
    svid, reason = BAD_PEERS[peer]
    asked = []

    def identity() -> X509Svid:
        asked.append(1)
        return svid

    async with serving(server()) as url:
        with caplog.at_level(logging.WARNING), pytest.raises((aiohttp.ClientError, OSError)):
            await ask(url, client_context(identity, HOME.bundle, only("/server")))
        assert asked
        assert await ask(url, client()) == "spiffe://example.org/client"
    refusals = [record.getMessage() for record in caplog.records if "refused a TLS client" in record.getMessage()]
    # A GET may be tried twice.
    assert refusals
    assert all(reason in refusal for refusal in refusals)


@pytest.mark.parametrize("peer", BAD_PEERS)
async def test_client_refuses_server_before_it_sends_a_request(peer: str) -> None:
    svid, reason = BAD_PEERS[peer]
    async with serving(server(svid, authorise=anybody)) as url:
        with pytest.raises((aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)) as error:
            await ask(url, client())
        assert reason in str(error.value)


async def test_client_without_certificate_is_told_apart() -> None:
    async with serving(server(client_certificate="required")) as url:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(url, client(None))
    async with serving(server(client_certificate="optional")) as url:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(url, client(None))
    async with serving(server(client_certificate="optional", authorise=anybody)) as url:
        assert await ask(url, client(None)) == "None"
        assert await ask(url, client()) == "spiffe://example.org/client"
    async with serving(server(client_certificate="none", authorise=anybody)) as url:
        assert await ask(url, client()) == "None"


async def test_svids_and_roots_rotate_while_contexts_are_in_use() -> None:
    domain = Domain()
    svids = {path: domain.svid(path) for path in ("/server", "/client")}
    for_server = server_context(lambda: svids["/server"], domain.bundle, only("/client"))
    for_client = client_context(lambda: svids["/client"], domain.bundle, only("/server"))
    async with serving(for_server) as url:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=for_client)) as kept:
            for _ in range(3):
                async with kept.get(url) as response:
                    assert await response.text() == "spiffe://example.org/client"
                assert await ask(url, for_client) == "spiffe://example.org/client"
                domain.rotate()
                svids["/server"] = domain.svid("/server")
                assert await ask(url, for_client) == "spiffe://example.org/client"
                svids["/client"] = domain.svid("/client")
        # A root that is not trusted any more takes its SVIDs along, and nothing is resumed.
        former = svids["/client"]
        domain.rotate()
        svids["/server"] = domain.svid("/server")
        domain.authorities = domain.authorities[-1:]
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(url, client_context(lambda: former, domain.bundle, only("/server")))
        svids["/client"] = domain.svid("/client")
        assert await ask(url, for_client) == "spiffe://example.org/client"


async def test_judge_that_fails_refuses_everybody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(peer: SpiffeId | None) -> str | None:
        raise KeyError(str(peer))

    async with serving(server(authorise=broken)) as url:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(url, client())
    assert "refused a TLS client: peer is refused: KeyError while judging it" in caplog.text


async def test_empty_bundle_trusts_nobody() -> None:
    domain = Domain()
    domain.authorities = []
    async with serving(server(domain.svid("/server"), authorise=anybody, client_certificate="none")) as url:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(url, client_context(None, domain.bundle, anybody))


async def test_no_connection_is_made_without_an_svid() -> None:
    async with serving(server()) as url:
        with pytest.raises(ssl.SSLError, match="no SVID to present yet"):
            context = client_context(lambda: None, HOME.bundle, only("/server"))
            await asyncio.open_connection("127.0.0.1", port_of(url), ssl=context)
    async with serving(server_context(lambda: None, HOME.bundle, anybody)) as url:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(url, client())


async def test_garbage_and_plaintext_harm_nobody() -> None:
    async with serving(server()) as url:
        port = port_of(url)
        for junk in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 4096):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(junk)
            with suppress(ConnectionError):
                assert not (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP")
            writer.close()
        assert await ask(url, client()) == "spiffe://example.org/client"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_old_protocol_versions_are_refused() -> None:
    async with serving(server(authorise=anybody, client_certificate="none")) as url:
        port = port_of(url)
        for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.minimum_version = old.maximum_version = version
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=old)
                writer.close()
                made = True
            except OSError:
                made = False
            assert made == taken


def test_contexts_refuse_blocking_sockets() -> None:
    with pytest.raises(NotImplementedError):
        client().wrap_socket(None)  # type: ignore[arg-type]


async def test_key_touches_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, certfile: str, *rest: object) -> None:
        opened.append(str(Path(certfile).readlink()))
        original(self, certfile)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    async with serving(server()) as url:
        await ask(url, client())
    assert len(opened) == 2
    assert all(name.startswith("/memfd:") for name in opened)
    descriptors = [link for link in Path("/proc/self/fd").iterdir() if "memfd:svid" in str(safe_readlink(link))]
    assert not descriptors


def safe_readlink(link: Path) -> Path:
    try:
        return link.readlink()
    except FileNotFoundError:
        return link
