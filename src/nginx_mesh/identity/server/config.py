"""What the section `identity` of the configuration file says to an identity server.

Errors are FieldErrors with the whole path of the field.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from nginx_mesh.api.decoding import decode_as
from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.meta import StrictModel
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.values import HostPort
from nginx_mesh.identity.common.address import parse_address

from .datastore import IN_MEMORY, DatastoreConfig

_SERVICE_ACCOUNT = re.compile(r"[a-z0-9.-]{1,253}:[a-z0-9.-]{1,253}")


class BundleEndpointSection(StrictModel, frozen=True, kw_only=True):
    """Where this trust domain's bundle is published. The files are for https_web: a certificate chain and its key."""

    address: str
    profile: Literal["https_spiffe", "https_web"] = "https_spiffe"
    cert_file: str | None = None
    key_file: str | None = None


class FederationSection(StrictModel, frozen=True, kw_only=True):
    """Federation with other trust domains. `nginx-meshctl identity federation` says which ones.

    `web_ca_file` is a PEM file of roots by which endpoints with https_web are verified, instead of the system's.
    """

    bundle_endpoint: BundleEndpointSection | None = None
    web_ca_file: str | None = msgspec.field(name="webCAFile", default=None)


class K8sPsatSection(StrictModel, frozen=True, kw_only=True):
    """Attestation of agents by projected service-account tokens.

    `service_account_allow_list` has the service accounts of agents, as `namespace:name`. Without `kube_config_file` the
    server is in a pod of the cluster.
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


class ServerConfig(StrictModel, frozen=True, kw_only=True):
    """The fields of the section `identity` that an identity server reads.

    `server_id` tells servers that share a datastore apart. The server keeps the file `bundle_path` at the newest bundle
    (PEM), for agents to start from. `health_address` is where the process says how it is: a port of the loopback
    interface, `host:port` or `unix:/path`.
    """

    data_dir: str | None = None
    server_id: str = msgspec.field(name="serverID", default="")
    listen: str = "127.0.0.1:8081"
    admin_socket: str | None = None
    health_address: str | None = None
    bundle_path: str | None = None
    datastore: dict[str, Any] | None = None
    attestation: AttestationSection = AttestationSection()
    federation: FederationSection = FederationSection()


def datastore_config(config: ServerConfig, settings: MeshSettings) -> DatastoreConfig:
    """Where the server remembers things. Raises FieldError."""
    if settings.persistent_storage == "off":
        if config.datastore is not None:
            raise FieldError("identity.datastore", "has no meaning with mtls.persistentStorage off")
        return IN_MEMORY
    with located("identity.datastore"):
        return decode_as(DatastoreConfig, config.datastore or {})


def parse_health_address(text: str) -> HostPort | Path:
    """Where a process says how it is; a port alone is one of the loopback interface. Raises FieldError."""
    return parse_address(f"127.0.0.1:{text}" if text.isdecimal() else text, "identity.healthAddress")
