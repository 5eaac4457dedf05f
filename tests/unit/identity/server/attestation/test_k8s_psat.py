import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from nginx_mesh.api.errors import FieldError
from nginx_mesh.identity.agent.remote import RemoteClient, projected_token
from nginx_mesh.identity.common.client import RefusedError, UnavailableError
from nginx_mesh.identity.common.keymanager.memory import MemoryKeyManager
from nginx_mesh.identity.config import IdentityConfig, read_config
from nginx_mesh.identity.server.attestation import Attested
from nginx_mesh.identity.server.attestation.k8s_psat import ProjectedTokens
from tests.mesh.identityserver import IdentityProcess

from .api_server import AUDIENCE, ApiServer

ALLOWED = ["nginx-mesh:agent", "other:agent"]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer().running(tmp_path) as server:
        yield server


def attestor(cluster: ApiServer) -> ProjectedTokens:
    return ProjectedTokens("example.org", ALLOWED, audience=AUDIENCE, kube_config_file=str(cluster.kubeconfig))


async def test_a_token_of_an_agents_pod_admits_the_agent_of_its_node_again_and_again(cluster: ApiServer) -> None:
    one = attestor(cluster)
    token = cluster.token("worker-1.eu.example.com")
    for _ in range(2):
        attested = await one.attest(f"{token}\n")
        assert attested == Attested("spiffe://example.org/nginx-mesh/agent/k8s.worker-1.eu.example.com")
    assert cluster.asked == ["POST /apis/authentication.k8s.io/v1/tokenreviews"] * 2
    await asyncio.gather(*(one.attest(cluster.token(f"worker-{number}")) for number in range(20)))


async def test_a_cluster_that_tells_no_node_with_the_token_is_asked_for_the_pod(cluster: ApiServer) -> None:
    cluster.tells_nodes = False
    one = attestor(cluster)
    token = cluster.token("worker-2")
    assert (await one.attest(token)).agent_id.endswith("/k8s.worker-2")
    assert cluster.asked[-1] == "GET /api/v1/namespaces/nginx-mesh/pods/agent-x7"
    pod = cluster.pods["nginx-mesh/agent-x7"]
    pod["spec"] = {}
    with pytest.raises(RefusedError, match="the pod nginx-mesh/agent-x7 is on no node"):
        await one.attest(token)
    pod["metadata"]["uid"] = "another"
    with pytest.raises(RefusedError, match="the token is that of an earlier pod by the name of nginx-mesh/agent-x7"):
        await one.attest(token)
    cluster.pods.clear()
    with pytest.raises(RefusedError, match="the pod nginx-mesh/agent-x7 is gone"):
        await one.attest(token)


async def test_tokens_that_prove_too_little_are_refused_with_the_reason(cluster: ApiServer) -> None:
    one = attestor(cluster)
    forged = cluster.token()[:-4] + "AAAA"
    for token, reason in (
        (forged, "the token is not authentic: .*invalid bearer token <secret>"),
        (cluster.token(audiences=("https://kubernetes.default.svc",)), "the token is not authentic"),
        (cluster.token(account="nginx-mesh:default"), "the service account nginx-mesh:default is not allowed"),
        (cluster.token(account="nginx-mesh-x:agent"), "nginx-mesh-x:agent is not allowed"),
        (cluster.token(bound=False), "the token is not bound to a pod"),
    ):
        with pytest.raises(RefusedError, match=reason) as refusal:
            await one.attest(token)
        assert token not in str(refusal.value)
    cluster.knows_audiences = False
    with pytest.raises(RefusedError, match="the token is not for the audience nginx-mesh-identity"):
        await one.attest(cluster.token())


async def test_a_user_that_is_no_service_account_is_refused(cluster: ApiServer) -> None:
    for username in ("system:node:worker-1", "system:serviceaccount:nginx-mesh:agent:x", "", "agent"):
        token = cluster.token()
        cluster.tokens[token][1]["username"] = username
        with pytest.raises(RefusedError, match="not that of a service account"):
            await attestor(cluster).attest(token)


async def test_what_cannot_be_a_token_does_not_trouble_the_cluster(cluster: ApiServer) -> None:
    for payload in ("", "x", "a.b", "a.b.c.d", "a.b.c\n\nd", "ä.b.c", "a.b." + "c" * (16 << 10), "\0.b.c"):
        with pytest.raises(RefusedError, match="this is no service-account token"):
            await attestor(cluster).attest(payload)
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (201, b"", "the answer is no TokenReview"),
        (201, b"[]", "the answer is no TokenReview"),
        (201, b"\xff", "the answer is no TokenReview"),
        (201, b'{"status":{"authenticated":"true"}}', "the answer is no TokenReview: .*authenticated"),
        (201, b'{"kind":"TokenReview"}', "the answer is no TokenReview: .*status"),
        (403, b'{"kind":"Status","message":"nope"}', "the cluster refuses: 403 nope .it needs a ClusterRole"),
        (500, b"oops", "the cluster refuses: 500"),
        (301, b"", "the cluster "),
    ],
)
async def test_a_cluster_that_cannot_judge_is_told_from_one_that_refuses(
    cluster: ApiServer, status: int, answer: bytes, reason: str
) -> None:
    token = cluster.token()
    cluster.answer_status, cluster.answer = status, answer
    with pytest.raises(UnavailableError, match=reason) as failure:
        await attestor(cluster).attest(token)
    assert token not in str(failure.value)
    cluster.answer = None
    await attestor(cluster).attest(token)


async def test_names_of_nodes_and_pods_that_none_can_have_are_no_part_of_an_id(cluster: ApiServer) -> None:
    for node in ("../../identity", "a/b", "", "A", "x" * 254, "node\n"):
        token = cluster.token(node)
        with pytest.raises((UnavailableError, RefusedError)):
            await attestor(cluster).attest(token)
    cluster.tells_nodes = False
    with pytest.raises(UnavailableError, match="is not the name of a pod"):
        await attestor(cluster).attest(cluster.token(pod="../secrets/x"))


async def test_a_cluster_that_is_down_makes_nothing_but_a_delay(tmp_path: Path) -> None:
    async with ApiServer().running(tmp_path) as cluster:
        token, one = cluster.token(), attestor(cluster)
    with pytest.raises(UnavailableError, match=r"the cluster cannot be reached: .*refused"):
        await one.attest(token)
    cluster.kubeconfig.unlink()
    with pytest.raises(UnavailableError, match=r"config.kubeConfigFile .*No such file"):
        await one.attest(token)
    cluster.kubeconfig.write_text("[")
    with pytest.raises(UnavailableError, match="is not a kubeconfig"):
        await one.attest(token)
    nowhere = ProjectedTokens("example.org", ALLOWED, audience=AUDIENCE)
    with pytest.raises(UnavailableError, match=r"there is no config.kubeConfigFile, and this is no pod"):
        await nowhere.attest(token)


async def test_no_token_is_logged(cluster: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = cluster.token(), cluster.token()[:-4] + "AAAA"
    await attestor(cluster).attest(good)
    with pytest.raises(RefusedError):
        await attestor(cluster).attest(bad)
    assert good.split(".")[2] not in caplog.text
    assert bad.split(".")[2] not in caplog.text


def test_the_projected_token_is_read_at_each_use(tmp_path: Path) -> None:
    path = tmp_path / "token"
    evidence = projected_token(path)
    with pytest.raises(UnavailableError, match=r"service-account token: .*token: No such file"):
        evidence()
    for text in ("one", "two"):
        path.write_text(text + "\n")
        assert evidence() == ("k8s_psat", text)


def configured(directory: Path, **section: object) -> IdentityConfig:
    path = directory / "identity.yaml"
    path.write_text(yaml.safe_dump({"identity": {"attestation": {"k8sPsat": section}}}))
    return read_config(path)


def test_the_configuration_is_checked_field_by_field(tmp_path: Path) -> None:
    config = configured(tmp_path, serviceAccountAllowList=["nginx-mesh:agent"], kubeConfigFile="kube")
    section = config.identity.attestation.k8s_psat
    assert section is not None
    assert section.audience == "nginx-mesh-identity"
    assert section.kube_config_file == str(tmp_path / "kube")
    for wrong, field in (
        ({}, "serviceAccountAllowList"),
        ({"serviceAccountAllowList": []}, "serviceAccountAllowList"),
        ({"serviceAccountAllowList": ["a:b", "agent"]}, r"serviceAccountAllowList\[1\]"),
        ({"serviceAccountAllowList": ["a:b"], "audience": ""}, "audience"),
        ({"serviceAccountAllowList": ["a:b"], "surprise": 1}, "surprise"),
    ):
        with pytest.raises(FieldError, match=rf"identity.attestation.k8sPsat.*{field}"):
            configured(tmp_path, **wrong)


async def test_an_agent_comes_and_comes_back_with_its_projected_token(cluster: ApiServer, tmp_path: Path) -> None:
    path = tmp_path / "token"
    section = {"serviceAccountAllowList": ALLOWED, "kubeConfigFile": str(cluster.kubeconfig)}
    server = IdentityProcess({"trustDomain": "example.org"}, {"attestation": {"k8sPsat": section}})
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, server)

        def client() -> RemoteClient:
            return RemoteClient(
                server.socket,
                "example.org",
                bootstrap=lambda: x509.load_pem_x509_certificates(server.bundle.read_bytes()),
                evidence=projected_token(path),
                keep=MemoryKeyManager(),
            )

        for _ in range(2):
            path.write_text(cluster.token("worker-1"))
            await client().sync([])
        assert server.log().count("spiffe://example.org/nginx-mesh/agent/k8s.worker-1 has an SVID until") == 2
        path.write_text(cluster.token(account="nginx-mesh:default"))
        with pytest.raises(UnavailableError, match="nginx-mesh:default is not allowed"):
            await client().sync([])
        assert "is refused POST '/v1/attest': the service account nginx-mesh:default is not allowed" in server.log()
        cluster.answer = b"oops"
        with pytest.raises(UnavailableError, match="the answer is no TokenReview"):
            await client().sync([])
