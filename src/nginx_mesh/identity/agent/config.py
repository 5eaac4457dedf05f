"""What the section `identity` of the configuration file says to an agent: where its identities come from.

Errors are FieldErrors with the whole path of the field.
"""

from __future__ import annotations

import msgspec

from nginx_mesh.api.meta import StrictModel


class ServerSection(StrictModel, frozen=True, kw_only=True):
    """Where the identity server is, for `provider: server`: `host:port` or `unix:/path`.

    `trust_bundle` is a PEM file of roots by which the agent verifies the server. `join_token_file` holds a token that
    was made for this agent; `token_path` one that Kubernetes projects into the agent's pod and keeps fresh.
    """

    address: str
    trust_bundle: str
    join_token_file: str | None = None
    token_path: str | None = None


class SpireSection(StrictModel, frozen=True, kw_only=True):
    """SPIRE's agent on this machine and its server, for `provider: spire`.

    The server is at a unix socket, or at `host:port`, where we are the administrator `admin_id`. `parent_id` is the
    SPIFFE ID of SPIRE's agent, which recognises us by `selectors`. Our pods are given the bundles of the trust domains
    in `federates_with`. The IDs of our registration entries begin with `entry_prefix`.
    """

    agent_socket: str
    server_socket: str | None = None
    server_address: str | None = None
    admin_id: str | None = msgspec.field(name="adminID", default=None)
    parent_id: str = msgspec.field(name="parentID")
    selectors: list[str]
    federates_with: list[str] = []
    entry_prefix: str = "nginx-mesh"
