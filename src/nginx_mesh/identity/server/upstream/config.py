"""The configuration of upstream authorities: the file that `--mtls-upstream-ca-conf` names, as typed values.

Keys and rules are those of NGINX Service Mesh's public schema. Errors are FieldErrors whose field is the key's full
path, such as `config.vault_addr`. Nothing is contacted. Secrets are in no message and no repr.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.decoding import decode_as
from nginx_mesh.api.errors import FieldError, join, located, one_line
from nginx_mesh.api.settings import UpstreamAuthority
from nginx_mesh.identity.common.keys import from_pem

from .base import UpstreamError
from .checks import parse_certificates

log = logging.getLogger(__name__)

API_VERSION = "v1"
MAX_FILE_BYTES = 1 << 20

_Rule = tuple[re.Pattern[str], str]
"""The pattern that a text must match, and the same in words."""

_TEXT: _Rule = (re.compile(r"[^\x00-\x1f\x7f]+"), "text without control characters")
_SECRET: _Rule = (re.compile(r"[!-~]+"), "printable ASCII characters without spaces")
_ARN: _Rule = (re.compile(r"arn:([^:\s]*:){4}\S+"), "an ARN (arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE)")
_REGION: _Rule = (re.compile(r"[a-z0-9][a-z0-9-]{0,62}"), "a region such as us-west-2")
_ALGORITHM: _Rule = (re.compile(r"[A-Z0-9_]+"), "a signing algorithm such as SHA256WITHECDSA")
_URL: _Rule = (re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(/[^\s?#@]*)?"), "a URL (https://HOST:PORT)")
_SEGMENT = r"(?!\.\.?(?:/|$))[A-Za-z0-9_.-]+"
_MOUNT: _Rule = (re.compile(rf"{_SEGMENT}(/{_SEGMENT})*"), "a path of letters, digits, '.', '-' and '_'")
_VAULT_NAMESPACE: _Rule = (re.compile(rf"({_MOUNT[0].pattern}/?)?"), _MOUNT[1])
_NAMESPACE: _Rule = (re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"), "the name of a namespace")
_NAME: _Rule = (re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"), "lower-case letters, digits, '-' and '.'")
_KIND: _Rule = (re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}"), "a kind such as ClusterIssuer")


def parse_private_key(pem: str) -> None:
    """Raise ValueError unless the text is an unencrypted private key. TLS libraries ask a terminal for passwords."""
    try:
        serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not a private key in unencrypted PEM") from None


class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    FILES: ClassVar[dict[str, Callable[[str], object]]] = {}
    """For each key that is a path, what reads the text of the file; it raises ValueError."""

    RULES: ClassVar[dict[str, _Rule]] = {}
    """For each key of another text, what the text must look like. Without a rule it must not be empty."""

    SECRETS: ClassVar[frozenset[str]] = frozenset()
    """Keys whose values appear in no repr and no message."""

    def __repr__(self) -> str:
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{n}=<secret>" if n in self.SECRETS and v is not None else f"{n}={v!r}" for n, v in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


class DiskConfig(_Config, frozen=True, kw_only=True):
    """A CA's certificate and key in files."""

    FILES = {"cert_file_path": parse_certificates, "key_file_path": from_pem, "bundle_file_path": parse_certificates}

    cert_file_path: str
    key_file_path: str
    bundle_file_path: str | None = None


class AwsPcaConfig(_Config, frozen=True, kw_only=True):
    """A CA of AWS Private Certificate Authority. Without a key, credentials are found as AWS's tools find them."""

    FILES = {"supplemental_bundle_path": parse_certificates}
    RULES = {
        "region": _REGION,
        "certificate_authority_arn": _ARN,
        "ca_signing_template_arn": _ARN,
        "signing_algorithm": _ALGORITHM,
        "assume_role_arn": _ARN,
        "endpoint": _URL,
    }
    SECRETS = frozenset({"aws_access_key_id", "aws_secret_access_key"})

    region: str
    certificate_authority_arn: str
    ca_signing_template_arn: str | None = None
    signing_algorithm: str | None = None
    assume_role_arn: str | None = None
    endpoint: str | None = None
    supplemental_bundle_path: str | None = None
    aws_access_key_id: str | None = None
    aws_secret_access_key: str | None = None


class AwsSecretConfig(_Config, frozen=True, kw_only=True):
    """A CA's certificate and key in AWS Secrets Manager."""

    RULES = {"region": _REGION, "cert_file_arn": _ARN, "key_file_arn": _ARN, "assume_role_arn": _ARN}
    SECRETS = frozenset({"aws_access_key_id", "aws_secret_access_key", "aws_secret_token"})

    region: str
    cert_file_arn: str
    key_file_arn: str
    aws_access_key_id: str | None = None
    aws_secret_access_key: str | None = None
    aws_secret_token: str | None = None
    assume_role_arn: str | None = None


class VaultCertAuth(_Config, frozen=True, kw_only=True):
    """Proving to Vault who we are by a TLS client certificate."""

    FILES = {"client_cert_path": parse_certificates, "client_key_path": parse_private_key}
    RULES = {"cert_auth_mount_point": _MOUNT}

    cert_auth_mount_point: str = "cert"
    cert_auth_role_name: str | None = None
    client_cert_path: str
    client_key_path: str


class VaultTokenAuth(_Config, frozen=True, kw_only=True):
    """Proving to Vault who we are by a token."""

    SECRETS = frozenset({"token"})

    token: str


class VaultAppRoleAuth(_Config, frozen=True, kw_only=True):
    """Proving to Vault who we are by an AppRole: the ID of a role and its secret."""

    RULES = {"approle_auth_mount_point": _MOUNT}
    SECRETS = frozenset({"approle_secret_id"})

    approle_auth_mount_point: str = "approle"
    approle_id: str
    approle_secret_id: str


class VaultConfig(_Config, frozen=True, kw_only=True):
    """A PKI secrets engine of HashiCorp Vault. An empty `namespace` means none."""

    FILES = {"ca_cert_path": parse_certificates}
    RULES = {"vault_addr": _URL, "namespace": _VAULT_NAMESPACE, "pki_mount_point": _MOUNT}

    vault_addr: str
    namespace: str
    pki_mount_point: str = "pki"
    ca_cert_path: str
    insecure_skip_verify: bool = False
    cert_auth: VaultCertAuth | None = None
    token_auth: VaultTokenAuth | None = None
    approle_auth: VaultAppRoleAuth | None = None


class CertManagerConfig(_Config, frozen=True, kw_only=True):
    """An issuer of cert-manager. Without a kubeconfig it is in the cluster of our pod."""

    FILES = {"kube_config_file": str}
    RULES = {"namespace": _NAMESPACE, "issuer_name": _NAME, "issuer_kind": _KIND, "issuer_group": _NAME}

    namespace: str
    issuer_name: str
    issuer_kind: str = "Issuer"
    issuer_group: str = "cert-manager.io"
    kube_config_file: str | None = None


PluginConfig = DiskConfig | AwsPcaConfig | AwsSecretConfig | VaultConfig | CertManagerConfig

_PLUGINS: dict[str, type[PluginConfig]] = {
    "disk": DiskConfig,
    "aws_pca": AwsPcaConfig,
    "awssecret": AwsSecretConfig,
    "vault": VaultConfig,
    "cert-manager": CertManagerConfig,
}


def parse_config(settings: UpstreamAuthority) -> PluginConfig:
    """The configuration of the plugin. Its files are not read. Raises FieldError."""
    if settings.api_version != API_VERSION:
        raise FieldError("apiVersion", f'"{one_line(settings.api_version, 40)}" is not supported; use "{API_VERSION}"')
    with located("config"):
        config: PluginConfig = decode_as(_PLUGINS[settings.upstream_authority], settings.config)
        _check_texts(config)
        match config:
            case VaultConfig():
                _check_one_method(config)
            case AwsPcaConfig() | AwsSecretConfig():
                _check_aws_credentials(config)
    return config


def check_files(config: PluginConfig) -> None:
    """Raise FieldError unless every file that the configuration names can be read and holds what it should."""
    with located("config"):
        for key, path, read in _files(config):
            with located(key):
                try:
                    read(read_file(path))
                except ValueError as error:
                    raise FieldError("", f"{path}: {error}") from None


def read_file(path: str) -> str:
    """The text of a regular file of at most 1 MiB. Raises ValueError with the reason, which does not name the path."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, which cannot be a pipe that blocks
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("is not a regular file")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("is not text") from None


def warn_of_open_key(path: str) -> None:
    """Log a warning about a private key that everybody on the machine can read."""
    with suppress(OSError):
        if Path(path).stat().st_mode & stat.S_IROTH:
            log.warning("%s: a private key that everybody can read; make its mode 0600", path)


def read_named_file(key: str, path: str) -> str:
    """The text of a file that the configuration names under `key`. Raises UpstreamError."""
    try:
        return read_file(path)
    except ValueError as error:
        raise UpstreamError(f"config.{key} {path}: {error}") from None


def with_absolute_paths(settings: UpstreamAuthority, directory: Path) -> UpstreamAuthority:
    """The same settings with absolute paths. Relative ones begin in `directory`. Raises FieldError."""
    changed = _absolute(settings.config, parse_config(settings), directory)
    return msgspec.structs.replace(settings, config=changed)


def _absolute(plain: dict[str, Any], config: _Config, directory: Path) -> dict[str, Any]:
    changed = dict(plain)
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, _Config):
            changed[name] = _absolute(plain[name], value, directory)
        elif name in config.FILES and value is not None:
            changed[name] = str(directory.absolute() / value)
    return changed


def _files(config: _Config, prefix: str = "") -> Iterator[tuple[str, str, Callable[[str], object]]]:
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, _Config):
            yield from _files(value, join(prefix, name))
        elif name in config.FILES and value is not None:
            yield join(prefix, name), value, config.FILES[name]


def _check_texts(config: _Config) -> None:
    for name in config.__struct_fields__:
        value = getattr(config, name)
        with located(name):
            if isinstance(value, _Config):
                _check_texts(value)
            elif isinstance(value, str):
                secret = name in config.SECRETS
                _check_text(value, config.RULES.get(name, _SECRET if secret else _TEXT), secret=secret)


def _check_text(value: str, rule: _Rule, *, secret: bool) -> None:
    pattern, words = rule
    if pattern.fullmatch(value):
        return
    if not value:
        raise FieldError("", "is empty")
    shown = "the value" if secret else f'"{one_line(value)}"'
    raise FieldError("", f"{shown} is not {words}")


def _check_one_method(config: VaultConfig) -> None:
    methods = ("cert_auth", "token_auth", "approle_auth")
    given = [name for name in methods if getattr(config, name) is not None]
    if len(given) != 1:
        raise FieldError("", f"needs exactly one of {', '.join(methods)}; it has {' and '.join(given) or 'none'}")


def _check_aws_credentials(config: AwsPcaConfig | AwsSecretConfig) -> None:
    key, secret = config.aws_access_key_id, config.aws_secret_access_key
    if key is None and secret is not None:
        raise FieldError("aws_access_key_id", "is required with aws_secret_access_key")
    if key is not None and secret is None:
        raise FieldError("aws_secret_access_key", "is required with aws_access_key_id")
    if key is None and isinstance(config, AwsSecretConfig) and config.aws_secret_token is not None:
        raise FieldError("aws_access_key_id", "is required with aws_secret_token")
