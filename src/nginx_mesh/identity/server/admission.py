"""Which agents an authority serves: those that proved where they run, each known by its newest SVID."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from cryptography import x509

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.client import RefusedError
from nginx_mesh.identity.common.ids import is_agent
from nginx_mesh.identity.common.x509svid import SvidError

from .attestation.base import Attested
from .authority import Authority
from .csr import public_key_of
from .datastore.base import AttestedNode, available
from .settings import AGENT_TTL


class Admission:
    """Gives agents their own SVIDs, and tells by these who calls.

    Every renewal has another serial number, and an agent is taken only with the newest, or with the one before until
    the newest is used. So a stolen key that is used after a renewal is told from the agent's own.
    """

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._datastore = authority.datastore

    async def attest(self, attested: Attested, kind: str, csr: bytes) -> tuple[x509.Certificate, ...]:
        """The first SVID of an agent that proved where it runs, as a chain with the leaf first.

        `kind` is the kind of attestation, `csr` is DER. What an earlier agent of that name held is void. Raises
        RefusedError, UnavailableError.
        """
        with available():
            known = await asyncio.to_thread(self._datastore.node, attested.agent_id)
        if known is not None and known.banned:
            raise RefusedError(f"{attested.agent_id} is banned")
        chain = self._issue(SpiffeId.parse(attested.agent_id), csr)
        serial, not_after = _serial(chain), int(chain[0].not_valid_after_utc.timestamp())
        with available():
            node = AttestedNode(attested.agent_id, kind, serial, not_after, attested.registrar)
            await asyncio.to_thread(self._datastore.put_node, node)
        return chain

    async def renew(self, node: AttestedNode, csr: bytes) -> tuple[x509.Certificate, ...]:
        """The next SVID of an agent that `admit` let in, as `attest`. Raises RefusedError, UnavailableError."""
        await self._authority.ensure_ca()
        chain = self._issue(SpiffeId.parse(node.spiffe_id), csr)
        # The present SVID stays good until the new one is used, because the answer may be lost.
        serials = f"{node.serial} {_serial(chain)}"
        await self._renewed(node, serials, int(chain[0].not_valid_after_utc.timestamp()))
        return chain

    async def admit(self, spiffe_id: SpiffeId, serial: int) -> AttestedNode:
        """The agent that presents this SVID, which is its only one from now on.

        Raises UnavailableError, and RefusedError unless the agent is attested and the SVID is the newest that it was
        given, or the one before while the newest was never used.
        """
        with available():
            node = await asyncio.to_thread(self._datastore.node, str(spiffe_id)) if is_agent(spiffe_id) else None
        if node is None:
            raise RefusedError(f"{spiffe_id} is not an attested agent")
        if node.banned:
            raise RefusedError(f"{spiffe_id} is banned")
        serials, presented = node.serial.split(), str(serial)
        if presented not in serials:
            raise RefusedError(f"its SVID is not the one that {spiffe_id} was given last")
        if presented != serials[0]:
            await self._renewed(node, presented, node.not_after)
        return replace(node, serial=presented)

    def _issue(self, spiffe_id: SpiffeId, csr: bytes) -> tuple[x509.Certificate, ...]:
        try:
            return self._authority.issue(public_key_of(csr, spiffe_id, ()), spiffe_id, (), AGENT_TTL)
        except SvidError as error:
            raise RefusedError(f"{spiffe_id}: {error}") from None

    async def _renewed(self, node: AttestedNode, serials: str, not_after: int) -> None:
        with available():
            if not await asyncio.to_thread(self._datastore.renew_node, node.spiffe_id, serials, not_after):
                raise RefusedError(f"{node.spiffe_id} was banned or evicted just now")


def _serial(chain: Sequence[x509.Certificate]) -> str:
    return str(chain[0].serial_number)
