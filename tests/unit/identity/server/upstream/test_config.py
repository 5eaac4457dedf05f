import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.decoding import decode_as
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import UpstreamAuthority
from nginx_mesh.identity.server.upstream import open_upstream
from nginx_mesh.identity.server.upstream.config import (
    MAX_FILE_BYTES,
    AwsPcaConfig,
    AwsSecretConfig,
    CertManagerConfig,
    DiskConfig,
    VaultAppRoleAuth,
    VaultCertAuth,
    VaultConfig,
    VaultTokenAuth,
    check_files,
    parse_config,
    read_file,
    with_absolute_paths,
)

from .pki import make_ca

SECRET = "s3cr3t-that-nobody-may-see"  # noqa: S105
ARN = "arn:aws:acm-pca::123456789012:certificate-authority/test"
ROLE = "arn:aws:iam::123456789012:role/mesh"

DISK = {"cert_file_path": "/ca.pem", "key_file_path": "/ca.key", "bundle_file_path": "/roots.pem"}
AWS_PCA = {
    "region": "us-west-2",
    "certificate_authority_arn": ARN,
    "ca_signing_template_arn": "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1",
    "signing_algorithm": "SHA256WITHECDSA",
    "assume_role_arn": ROLE,
    "endpoint": "https://acm-pca.us-west-2.amazonaws.com",
    "supplemental_bundle_path": "/more.pem",
    "aws_access_key_id": "AKIAEXAMPLE",
    "aws_secret_access_key": SECRET,
}
AWSSECRET = {
    "region": "us-west-2",
    "cert_file_arn": ARN,
    "key_file_arn": ARN + "-key",
    "aws_access_key_id": "AKIAEXAMPLE",
    "aws_secret_access_key": SECRET,
    "aws_secret_token": SECRET,
    "assume_role_arn": ROLE,
}
VAULT: dict[str, Any] = {
    "vault_addr": "https://vault.example.org:8200/",
    "namespace": "teams/mesh",
    "pki_mount_point": "pki/mesh",
    "ca_cert_path": "/vault-ca.pem",
    "insecure_skip_verify": True,
    "token_auth": {"token": SECRET},
}
CERT_AUTH = {
    "cert_auth_mount_point": "auth-cert",
    "cert_auth_role_name": "mesh",
    "client_cert_path": "/client.pem",
    "client_key_path": "/client.key",
}
APPROLE_AUTH = {"approle_auth_mount_point": "role", "approle_id": "mesh", "approle_secret_id": SECRET}
CERT_MANAGER = {
    "namespace": "sandbox",
    "issuer_name": "mesh-ca",
    "issuer_kind": "ClusterIssuer",
    "issuer_group": "cert-manager.io",
    "kube_config_file": "/kubeconfig",
}
FULL: dict[str, dict[str, Any]] = {
    "disk": DISK,
    "aws_pca": AWS_PCA,
    "awssecret": AWSSECRET,
    "vault": VAULT,
    "cert-manager": CERT_MANAGER,
}


def settings(plugin: Any, config: dict[str, Any], version: str = "v1") -> UpstreamAuthority:
    return UpstreamAuthority(api_version=version, upstream_authority=plugin, config=config)


def refusal(plugin: str, config: dict[str, Any]) -> FieldError:
    with pytest.raises(FieldError) as caught:
        parse_config(settings(plugin, config))
    assert SECRET not in str(caught.value)
    return caught.value


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def test_every_key_of_the_public_schema_is_taken() -> None:
    assert parse_config(settings("disk", DISK)) == DiskConfig(**DISK)
    assert parse_config(settings("aws_pca", AWS_PCA)) == AwsPcaConfig(**AWS_PCA)
    assert parse_config(settings("awssecret", AWSSECRET)) == AwsSecretConfig(**AWSSECRET)
    assert parse_config(settings("cert-manager", CERT_MANAGER)) == CertManagerConfig(**CERT_MANAGER)
    token = parse_config(settings("vault", VAULT))
    assert token == VaultConfig(**{**VAULT, "token_auth": VaultTokenAuth(token=SECRET)})
    rest = without(VAULT, "token_auth")
    cert = parse_config(settings("vault", {**rest, "cert_auth": CERT_AUTH}))
    assert cert == VaultConfig(**rest, cert_auth=VaultCertAuth(**CERT_AUTH))
    role = parse_config(settings("vault", {**rest, "approle_auth": APPROLE_AUTH}))
    assert role == VaultConfig(**rest, approle_auth=VaultAppRoleAuth(**APPROLE_AUTH))


def test_defaults_are_those_of_the_public_schema() -> None:
    vault = parse_config(settings("vault", without(VAULT, "pki_mount_point", "insecure_skip_verify")))
    assert isinstance(vault, VaultConfig)
    assert (vault.pki_mount_point, vault.insecure_skip_verify) == ("pki", False)
    assert VaultCertAuth(client_cert_path="c", client_key_path="k").cert_auth_mount_point == "cert"
    assert VaultAppRoleAuth(approle_id="i", approle_secret_id=SECRET).approle_auth_mount_point == "approle"
    issuer = parse_config(settings("cert-manager", {"namespace": "a", "issuer_name": "b"}))
    assert isinstance(issuer, CertManagerConfig)
    assert (issuer.issuer_kind, issuer.issuer_group) == ("Issuer", "cert-manager.io")


REQUIRED = {
    "disk": ["cert_file_path", "key_file_path"],
    "aws_pca": ["region", "certificate_authority_arn"],
    "awssecret": ["region", "cert_file_arn", "key_file_arn"],
    "vault": ["vault_addr", "namespace", "ca_cert_path"],
    "cert-manager": ["namespace", "issuer_name"],
}


@pytest.mark.parametrize(("plugin", "key"), [(plugin, key) for plugin, keys in REQUIRED.items() for key in keys])
def test_required_keys_are_required(plugin: str, key: str) -> None:
    error = refusal(plugin, without(FULL[plugin], key))
    assert (error.field, error.reason) == (f"config.{key}", "is required")


@pytest.mark.parametrize(
    ("plugin", "config"),
    [(p, {k: v for k, v in c.items() if k in REQUIRED[p] or k == "token_auth"}) for p, c in FULL.items()],
    ids=list(FULL),
)
def test_other_keys_are_not(plugin: str, config: dict[str, Any]) -> None:
    parse_config(settings(plugin, config))


@pytest.mark.parametrize("plugin", list(FULL))
def test_unknown_keys_are_refused(plugin: str) -> None:
    error = refusal(plugin, {**FULL[plugin], "pki_mount_path": "x"})
    assert error.field == "config.pki_mount_path"
    assert "unknown field; known are" in error.reason


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"token_auth": {"token": SECRET, "extra": SECRET}}, "config.token_auth.extra"),
        ({"token_auth": {}}, "config.token_auth.token"),
        ({"token_auth": SECRET}, "config.token_auth"),
        ({"cert_auth": without(CERT_AUTH, "client_key_path")}, "config.cert_auth.client_key_path"),
        ({"approle_auth": without(APPROLE_AUTH, "approle_secret_id")}, "config.approle_auth.approle_secret_id"),
        ({"approle_auth": {**APPROLE_AUTH, "approle_secret_id": 7}}, "config.approle_auth.approle_secret_id"),
        ({"approle_auth": {**APPROLE_AUTH, "approle_auth_mount_point": "../sys"}}, "config.approle_auth.approle"),
        ({"cert_auth": {**CERT_AUTH, "cert_auth_mount_point": ""}}, "config.cert_auth.cert_auth_mount_point"),
        ({"token_auth": {"token": f"{SECRET}\n"}}, "config.token_auth.token"),
    ],
)
def test_errors_inside_vaults_methods_name_the_whole_path(config: dict[str, Any], field: str) -> None:
    error = refusal("vault", {**without(VAULT, "token_auth"), **config})
    assert error.field.startswith(field)


@pytest.mark.parametrize(
    ("methods", "found"),
    [
        ({}, "none"),
        ({"token_auth": None}, "none"),
        ({"token_auth": {"token": SECRET}, "cert_auth": CERT_AUTH}, "cert_auth and token_auth"),
        ({"token_auth": {"token": SECRET}, "approle_auth": APPROLE_AUTH}, "token_auth and approle_auth"),
    ],
)
def test_vault_takes_exactly_one_method(methods: dict[str, Any], found: str) -> None:
    error = refusal("vault", {**without(VAULT, "token_auth"), **methods})
    assert error.field == "config"
    assert error.reason == f"needs exactly one of cert_auth, token_auth, approle_auth; it has {found}"


@pytest.mark.parametrize(
    ("plugin", "key", "value"),
    [
        ("disk", "cert_file_path", ""),
        ("disk", "cert_file_path", 7),
        ("disk", "key_file_path", "/a\0b"),
        ("aws_pca", "certificate_authority_arn", "test"),
        ("aws_pca", "certificate_authority_arn", "arn:aws:acm-pca"),
        ("aws_pca", "certificate_authority_arn", f"{ARN} x"),
        ("aws_pca", "ca_signing_template_arn", "arn:"),
        ("aws_pca", "assume_role_arn", "role/mesh"),
        ("aws_pca", "region", "us west"),
        ("aws_pca", "region", "evil.example.org/"),
        ("aws_pca", "signing_algorithm", "sha256"),
        ("aws_pca", "endpoint", "acm-pca.example.org"),
        ("aws_pca", "endpoint", "https://user:pass@example.org"),
        ("awssecret", "cert_file_arn", ""),
        ("awssecret", "key_file_arn", "arn:a:b:c"),
        ("awssecret", "aws_secret_token", f"{SECRET}\r\nX: y"),
        ("vault", "vault_addr", "vault.example.org:8200"),
        ("vault", "vault_addr", "file:///etc/passwd"),
        ("vault", "vault_addr", "https://vault.example.org/?a=b"),
        ("vault", "namespace", "a b"),
        ("vault", "namespace", "a\nX-Vault-Token: b"),
        ("vault", "pki_mount_point", "/pki"),
        ("vault", "insecure_skip_verify", "yes"),
        ("cert-manager", "namespace", ""),
        ("cert-manager", "namespace", "a/b"),
        ("cert-manager", "issuer_name", ""),
        ("cert-manager", "issuer_kind", "a b"),
        ("cert-manager", "issuer_group", "cert-manager.io/v1"),
    ],
)
def test_malformed_values_are_refused_by_their_key(plugin: str, key: str, value: object) -> None:
    assert refusal(plugin, {**FULL[plugin], key: value}).field == f"config.{key}"


def test_half_of_a_credential_is_refused() -> None:
    for plugin, config in (("aws_pca", AWS_PCA), ("awssecret", without(AWSSECRET, "aws_secret_token"))):
        assert refusal(plugin, without(config, "aws_access_key_id")).field == "config.aws_access_key_id"
        assert refusal(plugin, without(config, "aws_secret_access_key")).field == "config.aws_secret_access_key"
    alone = without(AWSSECRET, "aws_access_key_id", "aws_secret_access_key")
    assert refusal("awssecret", alone).field == "config.aws_access_key_id"


def test_other_versions_are_refused() -> None:
    with pytest.raises(FieldError, match=re.escape('apiVersion: "v2" is not supported; use "v1"')):
        parse_config(settings("disk", DISK, version="v2"))


@pytest.mark.parametrize("plugin", list(FULL))
def test_no_secret_shows_in_a_repr(plugin: str) -> None:
    every = [parse_config(settings(plugin, FULL[plugin]))]
    if plugin == "vault":
        every += [parse_config(settings(plugin, {**without(VAULT, "token_auth"), "approle_auth": APPROLE_AUTH}))]
    for config in every:
        assert SECRET not in repr(config)
        assert SECRET not in str(config)
        assert SECRET not in repr(settings(plugin, FULL[plugin]))


@given(st.sampled_from(list(FULL)), st.text(max_size=20), st.data())
def test_no_value_makes_anything_but_a_field_error(plugin: str, text: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(list(FULL[plugin])))
    value = data.draw(st.sampled_from([text, None, 3, [text], {text: text}]))
    try:
        parse_config(settings(plugin, {**FULL[plugin], key: value}))
    except FieldError as error:
        assert error.field == "config" or error.field.startswith(f"config.{key}")


CA = make_ca("ca")


def on_disk(directory: Path) -> dict[str, Any]:
    config = {key: str(directory / key) for key in DISK}
    Path(config["cert_file_path"]).write_text(CA.pem)
    Path(config["key_file_path"]).write_text(CA.key_pem)
    Path(config["bundle_file_path"]).write_text(CA.pem)
    return config


def test_files_that_hold_what_they_should_pass(tmp_path: Path) -> None:
    check_files(parse_config(settings("disk", on_disk(tmp_path))))


@pytest.mark.parametrize("key", list(DISK))
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"hello", "in (unencrypted )?PEM"),
        (b"\xff\xfe", "is not text"),
        (b"x" * (MAX_FILE_BYTES + 1), "is larger than 1 MiB"),
    ],
)
def test_files_that_do_not_are_named_with_their_key(
    key: str, content: bytes | None, reason: str, tmp_path: Path
) -> None:
    config = on_disk(tmp_path)
    path = Path(config[key])
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FieldError, match=reason) as caught:
        check_files(parse_config(settings("disk", config)))
    assert caught.value.field == f"config.{key}"
    assert str(path) in str(caught.value)


def test_a_file_inside_a_method_is_named_by_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CA.pem)
    auth = {"client_cert_path": str(tmp_path / "ca.pem"), "client_key_path": str(tmp_path / "none")}
    config = {**without(VAULT, "token_auth"), "ca_cert_path": str(tmp_path / "ca.pem"), "cert_auth": auth}
    with pytest.raises(FieldError) as caught:
        check_files(parse_config(settings("vault", config)))
    assert caught.value.field == "config.cert_auth.client_key_path"


def test_a_pipe_or_directory_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match=r"is not a regular file|Is a directory"):
            read_file(str(path))


def test_relative_paths_become_absolute_also_inside_methods() -> None:
    made = with_absolute_paths(settings("disk", {"cert_file_path": "a/b.pem", "key_file_path": "/k.pem"}), Path("/etc"))
    assert made.config == {"cert_file_path": "/etc/a/b.pem", "key_file_path": "/k.pem"}
    vault = {**without(VAULT, "token_auth"), "cert_auth": {"client_cert_path": "c", "client_key_path": "k"}}
    made = with_absolute_paths(settings("vault", vault), Path("/etc"))
    assert made.config["cert_auth"] == {"client_cert_path": "/etc/c", "client_key_path": "/etc/k"}
    assert made.config["ca_cert_path"] == "/vault-ca.pem"


@pytest.mark.parametrize("plugin", list(FULL))
def test_every_plugin_opens_with_nothing_there(plugin: str) -> None:
    assert plugin in str(open_upstream(settings(plugin, FULL[plugin])))


GUIDE = Path(__file__).parents[5] / "docs/guides/upstream-authorities.md"


def test_the_guides_examples_are_valid_one_for_each() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    found = [decode_as(UpstreamAuthority, yaml.safe_load(text)) for text in examples]
    for example in found:
        parse_config(example)
    assert {example.upstream_authority for example in found} == set(FULL)
