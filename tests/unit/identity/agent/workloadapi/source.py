import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common import jwtsvid
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.workload import JwtRefusedError, JwtSvid, WorkloadContext
from tests.unit.identity.domains import Domain


class Workload:
    """What a workload of `domain` with these paths is entitled to. It may change at any time."""

    def __init__(self, domain: Domain, *paths: str, federated: Mapping[str, TrustBundle] | None = None) -> None:
        self.domain, self.paths = domain, paths
        self.federated = dict(federated or {})
        self.streams = 0
        self.available = True
        self.renew()

    def renew(self) -> None:
        """New SVIDs, and the bundles of the moment."""
        bundles = self.federated | {self.domain.name: self.domain.bundle()}
        self.set(WorkloadContext(tuple(self.domain.svid(path) for path in self.paths), bundles))

    def set(self, context: WorkloadContext | None) -> None:
        self.context = context
        self._changed, former = asyncio.Event(), getattr(self, "_changed", None)
        if former is not None:
            former.set()

    async def updates(self) -> AsyncIterator[WorkloadContext | None]:
        self.streams += 1
        try:
            while True:
                changed = self._changed
                yield self.context
                await changed.wait()
        finally:
            self.streams -= 1

    async def jwt_svids(self, audience: Sequence[str], spiffe_id: SpiffeId | None) -> list[JwtSvid]:
        if not self.available:
            raise JwtRefusedError("the identity server does not answer", unavailable=True)
        ids = [svid.spiffe_id for svid in self.context.svids] if self.context else []
        if spiffe_id is not None and spiffe_id not in ids:
            raise JwtRefusedError(f"not entitled to {spiffe_id}")
        now = time.time()
        return [
            JwtSvid(i, jwtsvid.sign(self.domain.jwt_key, self.domain.jwt_key_id, i, audience, now, 300), int(now) + 300)
            for i in ids
            if spiffe_id in (None, i)
        ]
