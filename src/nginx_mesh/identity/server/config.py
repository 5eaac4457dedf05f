"""The configuration file of identity: one for the server process, the local mesh and agents.

    mtls:                          # as in Helm values and MeshConfig
      trustDomain: example.org
      caTTL: 720h
      svidTTL: 1h
      caKeyType: ec-p256
      upstreamAuthority: upstream.yaml   # a file, or what would be in it
      spireServerKeyManager: disk
      persistentStorage: "on"
    identity:
      provider: embedded           # or server: an identity server elsewhere, or spire
      dataDir: /var/lib/nginx-mesh-identity

Paths are relative to the file. All errors are FieldError with the whole path of the field.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from nginx_mesh.api.decoding import decode_as, without_nulls
from nginx_mesh.api.documents import read_file
from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.meta import StrictModel
from nginx_mesh.api.settings import MeshSettings, UpstreamAuthority
from nginx_mesh.api.values import (
    CaKeyType,
    HostPort,
    KeyManager,
    PersistentStorage,
    parse_ca_ttl,
    parse_dns_name,
    parse_host_port,
    parse_svid_ttl,
)

from .authority import IdentitySettings
from .datastore import IN_MEMORY, DatastoreConfig, with_absolute_files
from .upstream.config import check_files, parse_config, with_absolute_paths

DEFAULT_PORT = 8081
_SERVICE_ACCOUNT = re.compile(r"[a-z0-9.-]{1,253}:[a-z0-9.-]{1,253}")

_PATHS = (
    "kube_config_file",
    "token_path",
    "data_dir",
    "admin_socket",
    "bundle_path",
    "trust_bundle",
    "join_token_file",
    "agent_socket",
    "server_socket",
    "cert_file",
    "key_file",
    "web_ca_file",
)


class MtlsSection(StrictModel, frozen=True, kw_only=True):
    """What REFERENCE calls mtls.*, as text. What is None keeps its default."""

    trust_domain: str | None = None
    ca_ttl: str | None = msgspec.field(name="caTTL", default=None)
    svid_ttl: str | None = msgspec.field(name="svidTTL", default=None)
    ca_key_type: CaKeyType | None = None
    upstream_authority: str | dict[str, Any] | None = None
    spire_server_key_manager: KeyManager | None = None
    persistent_storage: PersistentStorage | None = None


class ServerSection(StrictModel, frozen=True, kw_only=True):
    """Where the identity server is, for `provider: server`: `host:port` or `unix:/path`.

    `trust_bundle` is a file of roots (PEM) that the server is believed by. `join_token_file` has a token that was made
    for this agent; `token_path` one that Kubernetes projects into our pod and keeps fresh.
    """

    address: str
    trust_bundle: str
    join_token_file: str | None = None
    token_path: str | None = None


class SpireSection(StrictModel, frozen=True, kw_only=True):
    """SPIRE's agent on this machine and its server, for `provider: spire`.

    The server is at a unix socket, or at `host:port`, where we are the administrator `admin_id`. `parent_id` is the
    agent's SPIFFE ID; by `selectors` it knows us. `federates_with` are trust domains whose bundles our pods are given.
    IDs of our entries begin with `entry_prefix`.
    """

    agent_socket: str
    server_socket: str | None = None
    server_address: str | None = None
    admin_id: str | None = msgspec.field(name="adminID", default=None)
    parent_id: str = msgspec.field(name="parentID")
    selectors: list[str]
    federates_with: list[str] = []
    entry_prefix: str = "nginx-mesh"


class BundleEndpointSection(StrictModel, frozen=True, kw_only=True):
    """Where this trust domain's bundle is published. The files are for https_web: a certificate chain and its key."""

    address: str
    profile: Literal["https_spiffe", "https_web"] = "https_spiffe"
    cert_file: str | None = None
    key_file: str | None = None


class FederationSection(StrictModel, frozen=True, kw_only=True):
    """Federation with other trust domains; with which ones is said by `nginx-meshctl identity federation`.

    `web_ca_file` has the roots (PEM) that endpoints with https_web are verified by, instead of the system's.
    """

    bundle_endpoint: BundleEndpointSection | None = None
    web_ca_file: str | None = msgspec.field(name="webCAFile", default=None)


class K8sPsatSection(StrictModel, frozen=True, kw_only=True):
    """Attestation of agents by projected service-account tokens.

    `service_account_allow_list` are those of agents, `namespace:name`. Without `kube_config_file` we are in a pod.
    """

    service_account_allow_list: list[str]
    audience: str = "nginx-mesh-identity"
    kube_config_file: str | None = None

    def __post_init__(self) -> None:
        if not self.service_account_allow_list:
            raise FieldError("serviceAccountAllowList", "is empty: no agent would be let in")
        for number, name in enumerate(self.service_account_allow_list):
            if not _SERVICE_ACCOUNT.fullmatch(name):
                raise FieldError(f"serviceAccountAllowList[{number}]", f"{name[:300]!r} is not namespace:name")
        if not self.audience:
            raise FieldError("audience", "is empty")


class AttestationSection(StrictModel, frozen=True, kw_only=True):
    """How agents may prove where they run, besides by join tokens."""

    k8s_psat: K8sPsatSection | None = None


class IdentitySection(StrictModel, frozen=True, kw_only=True):
    """How identity is provided and by which process. `server_id` tells servers that share a datastore apart.

    `bundle_path` is a file that is kept at the newest bundle (PEM), for agents to start from. `health_address` is where
    the process tells how it is: a port of the loopback interface, `host:port` or `unix:/path`.
    """

    provider: Literal["embedded", "server", "spire"] = "embedded"
    data_dir: str | None = None
    server_id: str = msgspec.field(name="serverID", default="")
    listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    admin_socket: str | None = None
    health_address: str | None = None
    bundle_path: str | None = None
    datastore: dict[str, Any] | None = None
    attestation: AttestationSection = AttestationSection()
    server: ServerSection | None = None
    spire: SpireSection | None = None
    federation: FederationSection = FederationSection()


class IdentityConfig(StrictModel, frozen=True, kw_only=True):
    """The whole file."""

    mtls: MtlsSection = MtlsSection()
    identity: IdentitySection = IdentitySection()

    def __post_init__(self) -> None:
        provider = self.identity.provider
        for name, section in (("server", self.identity.server), ("spire", self.identity.spire)):
            if provider == name and section is None:
                raise FieldError(f"identity.{name}", f"is required with provider: {name}")
            if provider != name and section is not None:
                raise FieldError(f"identity.{name}", f"has no meaning with provider: {provider}")


def read_config(path: Path) -> IdentityConfig:
    """The configuration in a file, its paths made absolute. Raises FieldError."""
    config = decode_as(IdentityConfig, without_nulls(read_file(path) or {}))
    return absolute(config, path.resolve().parent)


def absolute(config: IdentityConfig, directory: Path) -> IdentityConfig:
    """The same configuration with absolute paths, and the content of the upstream authority's file in place of it."""
    mtls = config.mtls
    upstream, origin = mtls.upstream_authority, directory
    with located("mtls.upstreamAuthority"):
        if isinstance(upstream, str):
            origin = (directory / upstream).parent
            upstream = read_file(directory / upstream)
        if upstream is not None:
            found = with_absolute_paths(decode_as(UpstreamAuthority, upstream), origin)
            mtls = msgspec.structs.replace(mtls, upstream_authority=msgspec.to_builtins(found))
    identity = _absolute(config.identity, directory)
    if identity.datastore is not None:
        identity = msgspec.structs.replace(identity, datastore=with_absolute_files(identity.datastore, directory))
    return msgspec.structs.replace(config, mtls=mtls, identity=identity)


def _absolute(section: Any, directory: Path) -> Any:
    """A section whose paths begin at the root."""
    changed: dict[str, Any] = {}
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if name in _PATHS and value is not None:
            changed[name] = str(directory / value)
        elif isinstance(value, StrictModel):
            changed[name] = _absolute(value, directory)
    return msgspec.structs.replace(section, **changed) if changed else section


def mesh_settings(config: IdentityConfig, base: MeshSettings) -> MeshSettings:
    """The mesh's settings, where the file says something its own. Raises FieldError."""
    return msgspec.structs.replace(base, **{name: value for name, (_, value) in said(config).items()})


def said(config: IdentityConfig) -> dict[str, tuple[str, Any]]:
    """What the file says of the mesh's settings: by their names, the field and the value. Raises FieldError."""
    mtls = config.mtls
    fields: dict[str, tuple[str, Any, Callable[[Any], Any]]] = {
        "trust_domain": ("mtls.trustDomain", mtls.trust_domain, parse_dns_name),
        "ca_ttl": ("mtls.caTTL", mtls.ca_ttl, parse_ca_ttl),
        "svid_ttl": ("mtls.svidTTL", mtls.svid_ttl, parse_svid_ttl),
        "ca_key_type": ("mtls.caKeyType", mtls.ca_key_type, _same),
        "upstream_authority": ("mtls.upstreamAuthority", mtls.upstream_authority, _upstream),
        "key_manager": ("mtls.spireServerKeyManager", mtls.spire_server_key_manager, _same),
        "persistent_storage": ("mtls.persistentStorage", mtls.persistent_storage, _same),
    }
    found: dict[str, tuple[str, Any]] = {}
    for name, (field, value, parse) in fields.items():
        if value is not None:
            with located(field):
                found[name] = field, parse(value)
    return found


def check(config: IdentityConfig, settings: MeshSettings) -> None:
    """Raise FieldError unless a server can be made of these: files are looked at, nothing is contacted."""
    datastore_config(config, settings)
    endpoint(config.identity.listen, "identity.listen")
    if config.identity.health_address is not None:
        health_endpoint(config.identity.health_address)
    if config.identity.server is not None:
        endpoint(config.identity.server.address, "identity.server.address")
    if settings.upstream_authority is not None:
        with located("mtls.upstreamAuthority"):
            check_files(parse_config(settings.upstream_authority))


def identity_settings(settings: MeshSettings) -> IdentitySettings:
    """The part of the mesh's settings that is about identity."""
    return IdentitySettings(
        settings.trust_domain,
        settings.svid_ttl,
        settings.ca_ttl,
        settings.ca_key_type,
        upstream=fingerprint(settings.upstream_authority),
    )


def fingerprint(upstream: UpstreamAuthority | None) -> str:
    """What tells one configuration of an upstream authority from another, without telling what it is."""
    if upstream is None:
        return ""
    digest = hashlib.sha256(msgspec.json.encode(upstream, order="sorted")).hexdigest()
    return f"{upstream.upstream_authority}-{digest[:16]}"


def datastore_config(config: IdentityConfig, settings: MeshSettings) -> DatastoreConfig:
    """Where the server remembers things. Raises FieldError."""
    if settings.persistent_storage == "off":
        if config.identity.datastore is not None:
            raise FieldError("identity.datastore", "has no meaning with mtls.persistentStorage off")
        return IN_MEMORY
    with located("identity.datastore"):
        return decode_as(DatastoreConfig, config.identity.datastore or {})


def endpoint(text: str, field: str) -> HostPort | Path:
    """Where an identity server listens: `host:port`, or a unix socket's path after `unix:`. Raises FieldError."""
    if text.startswith("unix:/"):
        return Path(text.removeprefix("unix:"))
    with located(field):
        return parse_host_port(text)


def health_endpoint(text: str) -> HostPort | Path:
    """Where a process tells how it is; a port alone is one of the loopback interface. Raises FieldError."""
    return endpoint(f"127.0.0.1:{text}" if text.isdecimal() else text, "identity.healthAddress")


def _upstream(value: str | dict[str, Any]) -> UpstreamAuthority:
    return decode_as(UpstreamAuthority, value)


def _same(value: Any) -> Any:
    return value
