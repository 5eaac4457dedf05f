"""SPIFFE IDs that a trust domain reserves for the control plane: those of identity servers and of agents."""

from __future__ import annotations

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError

K8S_PREFIX = "k8s."
"""An agent whose name begins so runs on a node that a Kubernetes cluster vouches for."""

_CONTROL_PLANE = "/nginx-mesh"


def server_spiffe_id(trust_domain: str) -> SpiffeId:
    """The SPIFFE ID that all identity servers of a trust domain share."""
    return SpiffeId(trust_domain, f"{_CONTROL_PLANE}/identity")


def agent_spiffe_id(trust_domain: str, name: str) -> SpiffeId:
    """The SPIFFE ID of the agent called `name`, which is one path segment. Raises SpiffeIdError."""
    if "/" in name or not name:
        raise SpiffeIdError(f"{name!r} is not the name of an agent")
    return SpiffeId(trust_domain, f"{_CONTROL_PLANE}/agent/{name}")


def is_agent(spiffe_id: SpiffeId) -> bool:
    """Whether a SPIFFE ID is that of an agent."""
    return spiffe_id.path.startswith(f"{_CONTROL_PLANE}/agent/")
