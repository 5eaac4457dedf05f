from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.server.datastore.base import FederationRelationship
from nginx_mesh.identity.server.federation.endpoint import BundleEndpoint, spiffe_context
from tests.unit.identity.domains import Domain

ENDPOINT = "/bundle-endpoint"


@asynccontextmanager
async def spiffe_endpoint(
    domain: Domain, bundle: Callable[[], TrustBundle] | None = None, port: int = 0
) -> AsyncIterator[FederationRelationship]:
    """The domain's own endpoint with the profile https_spiffe, and the relationship to have with it."""
    endpoint = BundleEndpoint(bundle or domain.bundle, spiffe_context(lambda: domain.svid(ENDPOINT), domain.bundle))
    bound = await endpoint.start("127.0.0.1", port)
    endpoint_id = f"spiffe://{domain.name}{ENDPOINT}"
    try:
        yield FederationRelationship(domain.name, f"https://127.0.0.1:{bound}/", "https_spiffe", endpoint_id)
    finally:
        await endpoint.close()


def by_web(relationship: FederationRelationship) -> FederationRelationship:
    return replace(relationship, profile="https_web", endpoint_spiffe_id="")
