"""Whose certificates are believed: chains with intermediates, and workloads of other trust domains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.common.x509svid import Signer, certificate_pem
from nginx_mesh.protocol.state import Grant, Identity, Inbound, Update
from tests.eventually import wait_until

from .test_mtls import HOUR, SOMEBODY, Mesh
from .world import TRUST_DOMAIN, Authority, Company, Pod, World

pytestmark = pytest.mark.mesh

OTHER = "other.example"
LOCAL_ID = workload_id(TRUST_DOMAIN, "test", "server")
OTHER_ID = workload_id(OTHER, "test", "server")


@pytest.fixture(scope="module")
def shared() -> Iterator[Mesh]:
    with World("strict") as world:
        yield Mesh(world)


@pytest.fixture
def mesh(shared: Mesh) -> Mesh:
    """One mesh in one trust domain, as it was before each test."""
    for pod in (shared.server, shared.client):
        pod.identity = pod.authority = None
        pod.federated = {}
        pod.expected_id = ""
    shared.server.inbound.clear()
    shared.world.push()
    return shared


def works(mesh: Mesh) -> tuple[int, bool, str]:
    """What comes of the client's calls by HTTP, TCP and gRPC."""
    answer = mesh.client.call("grpc_client", "unary", f"{mesh.web.vip}:50051")
    return mesh.http(), mesh.tcp(), answer.get("code") or ("OK" if answer["intact"] else "mangled")


WORKS = (200, True, "OK")
REFUSED = (502, False, "UNAVAILABLE")


def callers_seen(mesh: Mesh, client: Pod | None = None) -> list[str]:
    """The IDs that the server's application is told by the client's request."""
    answer = (client or mesh.client).get(f"http://{mesh.web.vip}/echo", "X-Forwarded-Client-Spiffe-Id: forged")
    return [value for name, value in answer["body"]["headers"] if name.lower() == "x-forwarded-client-spiffe-id"]


def federate(mesh: Mesh) -> tuple[Authority, Authority]:
    """The server's trust domain is another than the client's, and they believe each other."""
    ours, theirs = mesh.world.authority, Authority(OTHER)
    mesh.server.authority = theirs
    mesh.server.federated = {TRUST_DOMAIN: ours.bundle}
    mesh.client.federated = {OTHER: theirs.bundle}
    mesh.world.push()
    return ours, theirs


def intrusion(mesh: Mesh, identity: Identity) -> list[str]:
    """What the outsider gets of the server's HTTP and TCP ports with a certificate; "" when it is cut off."""
    path = str(mesh.certificate(identity))
    tries = [(8080, ()), (2525, ("--send", "")), (2525, ("--send", "", "--alpn", "nginx-mesh-tcp"))]
    return [str(mesh.intrude(port, "--cert", path, *more).get("answer", ""))[:12] for port, more in tries]


def forge(authority: Authority, spiffe_id: SpiffeId) -> Identity:
    """An SVID of another trust domain than the authority's, as our own code would not sign it."""
    astray = copy.copy(authority)
    astray.signer = Signer(authority.certificate, authority.signer.key)
    vars(astray.signer)["spiffe_id"] = SpiffeId(spiffe_id.trust_domain)
    return astray.identity(spiffe_id)


# Chains.


@pytest.mark.parametrize("intermediates", [0, 1, 3])
def test_the_mesh_can_be_below_a_companys_root(mesh: Mesh, intermediates: int) -> None:
    """Either side sends the intermediates, and the other knows the root only."""
    company = Company(intermediates)
    mesh.server.authority, mesh.client.authority = Authority(company=company), Authority(company=company)
    mesh.world.push()
    assert works(mesh) == WORKS
    assert callers_seen(mesh) == [str(mesh.client.spiffe_id)]
    stranger = mesh.server.authority.identity(LOCAL_ID)
    assert intrusion(mesh, stranger)[0] == "HTTP/1.1 200"


@pytest.mark.parametrize("first", ["server", "client"])
def test_a_self_signed_mesh_moves_below_a_company_one_pod_at_a_time(mesh: Mesh, first: str) -> None:
    old, new = mesh.world.authority, Authority(company=Company(1))
    both = old.bundle + new.bundle
    for pod in (mesh.server, mesh.client):
        issuer = new if pod.name == first else old
        pod.identity = issuer.identity(pod.spiffe_id, bundle=both)
    mesh.world.push()
    assert works(mesh) == WORKS


def test_an_authority_in_the_bundle_is_believed_without_the_one_above_it(mesh: Mesh) -> None:
    """As go's verifier has it: whoever is in a bundle is a trust anchor."""
    authority = Authority(company=Company(1))
    authority.chain, authority.bundle = "", certificate_pem(authority.certificate)
    mesh.server.authority = mesh.client.authority = authority
    mesh.world.push()
    assert works(mesh) == WORKS


def without_intermediate(company: Company) -> Identity:
    authority = Authority(company=company)
    authority.chain = ""
    return authority.identity(LOCAL_ID)


def of_another_company(company: Company) -> Identity:
    return Authority(company=Company(1)).identity(LOCAL_ID, bundle=company.bundle)


def below_the_last_authority(company: Company) -> Identity:
    """The mesh's CA (pathlen 0) has made another, which signs."""
    astray = Authority(company=company)
    middle = copy.copy(company)
    middle.signer, middle.chain = astray.signer, astray.chain
    return Authority(company=middle).identity(LOCAL_ID)


def by_a_workload(company: Company) -> Identity:
    """A workload signs as if it were an authority."""
    authority = Authority(company=company)
    workload = authority.identity(SOMEBODY)
    key = serialization.load_pem_private_key(workload.key.encode(), None)
    authority.signer = Signer(x509.load_pem_x509_certificate(workload.svid.encode()), key)  # type: ignore[arg-type]
    authority.chain = workload.svid
    return authority.identity(LOCAL_ID)


def expired(company: Company) -> Identity:
    return Authority(company=company).identity(LOCAL_ID, valid=(-HOUR, -1))


@pytest.mark.parametrize(
    "chain", [without_intermediate, of_another_company, below_the_last_authority, by_a_workload, expired]
)
def test_a_chain_that_does_not_lead_to_a_root_proves_nothing(mesh: Mesh, chain: Callable[[Company], Identity]) -> None:
    company = Company(2)
    mesh.server.authority = mesh.client.authority = Authority(company=company)
    mesh.server.identity = chain(company)
    mesh.world.push()
    assert works(mesh) == REFUSED
    mesh.server.identity = None
    mesh.world.push()
    assert works(mesh) == WORKS
    assert intrusion(mesh, chain(company)) == ["HTTP/1.1 400", "", ""]


# Federation.


def test_workloads_of_federated_trust_domains_call_each_other(mesh: Mesh) -> None:
    federate(mesh)
    assert works(mesh) == WORKS
    assert callers_seen(mesh) == [f"spiffe://{TRUST_DOMAIN}/ns/test/sa/client"]
    caller = Authority(OTHER)
    mesh.server.authority, mesh.client.authority = None, caller
    mesh.server.federated, mesh.client.federated = (
        {OTHER: caller.bundle},
        {TRUST_DOMAIN: mesh.world.authority.bundle},
    )
    mesh.world.push()
    assert works(mesh) == WORKS
    assert callers_seen(mesh) == [f"spiffe://{OTHER}/ns/test/sa/client"]


def test_federated_trust_domains_may_be_below_companies(mesh: Mesh) -> None:
    ours, theirs = Authority(company=Company(2)), Authority(OTHER, company=Company(1))
    mesh.client.authority, mesh.server.authority = ours, theirs
    mesh.client.federated, mesh.server.federated = {OTHER: theirs.bundle}, {TRUST_DOMAIN: ours.bundle}
    mesh.world.push()
    assert works(mesh) == WORKS
    mesh.server.federated = {TRUST_DOMAIN: Authority().bundle}
    mesh.world.push([mesh.server])
    stranger = ours.identity(mesh.client.spiffe_id)
    assert intrusion(mesh, stranger) == ["HTTP/1.1 400", "", ""]


def test_two_trust_domains_below_one_root_do_not_vouch_for_each_other(mesh: Mesh) -> None:
    """One root in both bundles: each CA below it may sign what it likes, as far as OpenSSL is concerned."""
    company = Company()
    mesh.server.authority = Authority(company=company)
    mesh.world.push([mesh.server])
    foreign = Authority(OTHER, company=company)
    assert intrusion(mesh, foreign.identity(OTHER_ID)) == ["HTTP/1.1 400", "", ""]
    mesh.server.federated = {OTHER: company.bundle}
    mesh.world.push([mesh.server])
    assert intrusion(mesh, foreign.identity(OTHER_ID))[0] == "HTTP/1.1 200"


def test_no_authority_vouches_for_ids_of_another_trust_domain(mesh: Mesh) -> None:
    ours, theirs = federate(mesh)
    claims = [(ours, OTHER_ID), (theirs, LOCAL_ID), (ours, workload_id(OTHER, "test", "client"))]
    for authority, spiffe_id in claims:
        assert intrusion(mesh, forge(authority, spiffe_id)) == ["HTTP/1.1 400", "", ""], spiffe_id
    assert intrusion(mesh, ours.identity(LOCAL_ID))[0] == "HTTP/1.1 200", "the intruder itself is able to call"
    mesh.server.identity = forge(ours, mesh.server.spiffe_id)
    mesh.world.push([mesh.server])
    assert works(mesh) == REFUSED, "our CA speaks for a workload of the other trust domain"
    mesh.server.identity = forge(theirs, LOCAL_ID)
    mesh.server.expected_id = str(LOCAL_ID)
    mesh.world.push()
    assert works(mesh) == REFUSED, "their CA speaks for a workload of ours"


def test_endpoints_of_a_trust_domain_that_is_unknown_are_refused(mesh: Mesh) -> None:
    federate(mesh)
    mesh.client.federated = {"third.example": Authority("third.example").bundle}
    mesh.world.push([mesh.client])
    assert works(mesh) == REFUSED
    reason = f'no trust bundle for the trust domain of "{mesh.server.spiffe_id}"'
    wait_until(lambda: reason in mesh.client.log, "the reason in the log")


def test_callers_of_a_trust_domain_that_is_unknown_are_refused(mesh: Mesh) -> None:
    federate(mesh)
    mesh.server.federated = {"third.example": Authority("third.example").bundle}
    mesh.world.push([mesh.server])
    assert works(mesh) == (400, False, "UNAUTHENTICATED")
    reason = f'no trust bundle for the trust domain of the caller "{mesh.client.spiffe_id}"'
    wait_until(lambda: reason in mesh.server.log, "the reason in the log")


def test_a_client_that_ends_a_federation_uses_none_of_its_connections_again(mesh: Mesh) -> None:
    federate(mesh)
    assert works(mesh) == WORKS
    mesh.client.federated = {}
    mesh.world.push([mesh.client])
    assert works(mesh) == REFUSED


def test_a_client_that_gets_another_bundle_of_a_trust_domain_proves_kept_connections_anew(mesh: Mesh) -> None:
    federate(mesh)
    assert works(mesh) == WORKS
    mesh.client.federated = {OTHER: Authority(OTHER).bundle}
    mesh.world.push([mesh.client])
    assert works(mesh) == REFUSED


def test_a_server_that_ends_a_federation_answers_no_more_on_kept_connections(mesh: Mesh) -> None:
    federate(mesh)
    assert works(mesh) == WORKS
    mesh.server.federated = {}
    mesh.world.push([mesh.server])
    assert works(mesh) == (400, False, "UNAUTHENTICATED")
    federate(mesh)
    assert works(mesh) == WORKS


def test_callers_of_other_trust_domains_need_a_grant_like_all(mesh: Mesh) -> None:
    federate(mesh)
    for port, protocol in ((8080, "http"), (2525, "tcp"), (50051, "grpc")):
        grants = [Grant(target="test/t", sources=[str(OTHER_ID)])]
        mesh.server.inbound[port] = Inbound(protocols=[protocol], grants=grants)  # type: ignore[list-item]
    mesh.world.push([mesh.server])
    assert works(mesh) == (403, False, "PERMISSION_DENIED")
    for inbound in mesh.server.inbound.values():
        assert inbound.grants is not None
        inbound.grants[0].sources.append(str(mesh.client.spiffe_id))
    mesh.world.push([mesh.server])
    assert works(mesh) == WORKS


@pytest.mark.parametrize("bundle", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_bundle_that_cannot_be_used_costs_its_own_trust_domain_only(mesh: Mesh, bundle: str) -> None:
    """It is somebody else's, and must not keep our own SVID from being renewed."""
    federate(mesh)
    third = Authority("third.example")
    assert works(mesh) == WORKS
    mesh.client.federated = {OTHER: mesh.client.federated[OTHER], "third.example": bundle}
    mesh.world.push([mesh.client])
    assert works(mesh) == WORKS
    wait_until(lambda: 'nobody of the trust domain "third.example" is believed' in mesh.client.log, "a log line")
    mesh.client.federated = {OTHER: bundle, "third.example": third.bundle}
    mesh.world.push([mesh.client])
    assert works(mesh) == REFUSED


def refusal(mesh: Mesh, federated: dict[str, str]) -> str:
    """Why the client's sidecar does not take an identity with these trust domains."""
    before = mesh.client.version
    mesh.client.federated = federated
    identity = mesh.client.state()["identity"]
    status, answer = mesh.client.update(Update(base=before, version=before + 1, set_={"identity": identity}))
    assert (status, answer["key"]) == (400, "identity")
    return str(answer["error"])


@pytest.mark.parametrize("name", ["", "Other.example", "a/b", "a" * 256])
def test_a_trust_domain_with_an_impossible_name_is_refused(mesh: Mesh, name: str) -> None:
    assert "is not a trust domain" in refusal(mesh, {name: Authority(OTHER).bundle})
    assert works(mesh) == WORKS


def test_a_pod_federates_with_others_only(mesh: Mesh) -> None:
    """A second bundle for the own trust domain would be a way around its CA's rotation."""
    assert "own trust domain" in refusal(mesh, {TRUST_DOMAIN: Authority().bundle})
    assert works(mesh) == WORKS
