"""Chains, before verifiers that we did not write: what is accepted here, they accept as well, and nothing else."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import event, given, settings
from hypothesis import strategies as st

from nginx_mesh.api.settings import UpstreamAuthority as Settings
from nginx_mesh.identity.common.keys import generate_key
from nginx_mesh.identity.server.upstream import MintedCa, UpstreamError, cert_manager, open_upstream
from nginx_mesh.identity.server.upstream.checks import accept
from tests.unit.identity.chains import PURPOSES, openssl_verify

from .cert_manager_server import ISSUER, NAMESPACE, FakeCertManager
from .pca_server import ARN, REGION, our_pca
from .pki import (
    CA_USAGE,
    DAY,
    NOW,
    Ca,
    answer,
    assert_openssl_accepts,
    bundle_pem,
    go_verify,
    key_usage,
    make_ca,
    request,
    svid_chain,
    uri,
)
from .vault_server import our_vault

OURS = request()
KEYS = [generate_key("ec-p256") for _ in range(4)]

_SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
_BOTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
_HERE = x509.NameConstraints([uri("example.org")], None)
_THERE = x509.NameConstraints([uri("evil.org")], None)

# Mostly right, so that chains of several come through.
AUTHORITIES = st.fixed_dictionaries(
    {
        "path_length": st.sampled_from([None, None, None, 3, 2, 1, 0]),
        "ca": st.sampled_from([True] * 9 + [False]),
        "usage": st.sampled_from([CA_USAGE] * 9 + [key_usage(digital_signature=True)]),
        "end": st.sampled_from([NOW + DAY] * 9 + [NOW - 1]),
        "more": st.sampled_from([()] * 8 + [[(e, c)] for e, c in ((_SERVER_ONLY, False), (_BOTH, False))]),
        "constraints": st.sampled_from([None] * 8 + [_HERE, _THERE]),
    }
)


def built(descriptions: list[dict[str, Any]]) -> list[Ca]:
    """From the root down."""
    chain: list[Ca] = []
    for index, description in enumerate(descriptions):
        given = dict(description)
        constraints = given.pop("constraints")
        more = [*given.pop("more"), *([(constraints, True)] if constraints else [])]
        if not given["ca"]:
            given["path_length"] = None
        chain.append(make_ca(f"ca {index}", chain[-1] if chain else None, key=KEYS[index], more=more, **given))
    return chain


@given(st.lists(AUTHORITIES, min_size=1, max_size=4), st.sampled_from([None, 0, 1]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_chain_is_accepted_exactly_when_openssl_accepts_it(
    descriptions: list[dict[str, Any]], path_length: int | None, shuffled: bool
) -> None:
    chain = built(descriptions)
    certificate = answer(OURS.csr, chain[-1], path_length=path_length)
    others = [ca.certificate for ca in (chain if shuffled else reversed(chain))]
    try:
        minted = accept(OURS.csr, certificate, others, [chain[0].certificate], NOW)
    except UpstreamError as error:
        event(str(error).partition('" ')[2].partition(" ")[0])
        path = [certificate, *(ca.certificate for ca in reversed(chain[1:]))]
        minted = MintedCa(tuple(path), (chain[0].certificate,))
        with tempfile.TemporaryDirectory() as directory:
            refusals = [
                openssl_verify(Path(directory), svid_chain(minted, OURS.key), bundle_pem(minted.roots), purpose, NOW)
                for purpose in PURPOSES
            ]
        assert any(refusals), f"openssl takes what is refused here: {error}"
        return
    event(f"accepted with {len(minted.chain)}")
    with tempfile.TemporaryDirectory() as directory:
        assert_openssl_accepts(Path(directory), minted, OURS.key)


@pytest.mark.skipif(shutil.which("go") is None, reason="openssl verifies such chains; Go only where it is installed")
async def test_go_where_installed_accepts_what_each_upstream_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cert_manager, "_POLL_SECONDS", 0.05)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    chains: list[tuple[str, str]] = []

    async def mint(plugin: Any, config: dict[str, Any]) -> None:
        authority = open_upstream(Settings(api_version="v1", upstream_authority=plugin, config=config))
        minted = await authority.mint_ca(OURS.csr, time.time() - 300, time.time() + 3600)
        await authority.close()
        chains.append((svid_chain(minted, OURS.key), bundle_pem(minted.roots)))

    async with our_vault(tmp_path) as vault:
        await mint("vault", vault.approle())
    async with our_pca() as pca:
        credentials = {"aws_access_key_id": pca.key_id, "aws_secret_access_key": pca.secret}
        await mint(
            "aws_pca",
            {"region": REGION, "certificate_authority_arn": ARN, "endpoint": pca.address, **credentials},
        )
    async with FakeCertManager().running(tmp_path) as manager:
        await mint(
            "cert-manager",
            {"namespace": NAMESPACE, "issuer_name": ISSUER, "kube_config_file": str(manager.kubeconfig)},
        )
    assert len(chains) == 3
    assert go_verify(tmp_path, chains) == ""
