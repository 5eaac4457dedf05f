"""The configuration file of identity. The identity server's process, the local mesh and agents read the same one.

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

Paths are relative to the file. All errors are FieldErrors with the whole path of the field.
"""

from __future__ import annotations

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
    KeyManager,
    PersistentStorage,
    parse_ca_ttl,
    parse_dns_name,
    parse_svid_ttl,
)

from .agent.config import ServerSection, SpireSection
from .common.address import parse_address
from .server.config import ServerConfig, datastore_config, parse_health_address
from .server.datastore import with_absolute_files
from .server.upstream.config import check_files, parse_config, with_absolute_paths

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
    """The Helm values mtls.* of NGINX Service Mesh, as text. A field that is None keeps its default."""

    trust_domain: str | None = None
    ca_ttl: str | None = msgspec.field(name="caTTL", default=None)
    svid_ttl: str | None = msgspec.field(name="svidTTL", default=None)
    ca_key_type: CaKeyType | None = None
    upstream_authority: str | dict[str, Any] | None = None
    spire_server_key_manager: KeyManager | None = None
    persistent_storage: PersistentStorage | None = None


class IdentitySection(ServerConfig, frozen=True, kw_only=True):
    """Who provides identities: an identity server in this process (`embedded`) or elsewhere (`server`), or SPIRE."""

    provider: Literal["embedded", "server", "spire"] = "embedded"
    server: ServerSection | None = None
    spire: SpireSection | None = None


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
    datastore_config(config.identity, settings)
    parse_address(config.identity.listen, "identity.listen")
    if config.identity.health_address is not None:
        parse_health_address(config.identity.health_address)
    if config.identity.server is not None:
        parse_address(config.identity.server.address, "identity.server.address")
    if settings.upstream_authority is not None:
        with located("mtls.upstreamAuthority"):
            check_files(parse_config(settings.upstream_authority))


def _upstream(value: str | dict[str, Any]) -> UpstreamAuthority:
    return decode_as(UpstreamAuthority, value)


def _same(value: Any) -> Any:
    return value
