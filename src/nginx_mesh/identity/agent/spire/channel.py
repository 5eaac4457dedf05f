"""How the API of a SPIRE server is reached: on its unix socket, or by TCP with mTLS as one of its administrators."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import grpc.aio

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.api.values import HostPort
from nginx_mesh.identity.common import tls
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.workload import WorkloadContext, X509Svid

from .entries import SpireError

_CONNECT_TIMEOUT = 10.0
_CHUNK = 64 << 10


class ServerChannel(Protocol):
    """Opens gRPC channels to the server."""

    def use(self, context: WorkloadContext) -> None:
        """Take what the agent gave us, from which a server that authenticates its callers is shown an SVID."""

    def open(self) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        """A channel, as a context manager. Raises SpireError while there can be none."""


class UnixServer:
    """A ServerChannel: whoever can open the server's socket is an administrator."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def use(self, context: WorkloadContext) -> None:
        """See ServerChannel. Nothing is needed."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[grpc.aio.Channel]:
        """See ServerChannel."""
        async with _channel(self._socket) as channel:
            yield channel


class TcpServer:
    """A ServerChannel: mTLS with the SVID of an entry that the server was told is an administrator's.

    The server has to prove that it is `spiffe://<trust domain>/spire/server` by the bundle that the agent gave.
    """

    def __init__(self, address: HostPort, admin_id: SpiffeId) -> None:
        self._address = address
        self._admin_id = admin_id
        self._server_id = SpiffeId(admin_id.trust_domain, "/spire/server")
        self._svid: X509Svid | None = None
        self._bundle = TrustBundle(admin_id.trust_domain)
        self._reason = ""

    def use(self, context: WorkloadContext) -> None:
        """See ServerChannel."""
        self._svid = next((svid for svid in context.svids if svid.spiffe_id == self._admin_id), None)
        self._bundle = context.bundles.get(self._admin_id.trust_domain, TrustBundle(self._admin_id.trust_domain))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[grpc.aio.Channel]:
        """See ServerChannel."""
        if self._svid is None:
            raise SpireError(f"the SPIRE agent grants us no {self._admin_id} to call its server with")
        # gRPC for Python checks host names, which the certificates of SPIRE's servers lack, and cannot check SPIFFE
        # IDs. So we do the TLS ourselves, and gRPC connects to a socket in a directory that nobody else can enter.
        with tempfile.TemporaryDirectory(prefix="nginx-mesh-") as directory:
            socket = Path(directory) / "spire"
            relay = await asyncio.start_unix_server(self._relay, path=socket)
            try:
                async with _channel(socket) as channel:
                    yield channel
            except SpireError as error:
                raise SpireError(f"{error} ({self._address}: {self._reason})" if self._reason else str(error)) from None
            finally:
                relay.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._address.host, self._address.port
        context = tls.client_context(lambda: self._svid, lambda: self._bundle, self._refuse, alpn=("h2",))
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                there, to_there = await asyncio.open_connection(host, port, ssl=context)
            self._reason = ""
        except (OSError, TimeoutError) as error:
            self._reason = str(error)
            writer.close()
            return
        await asyncio.gather(_pump(reader, to_there), _pump(there, writer))

    def _refuse(self, peer: SpiffeId | None) -> str | None:
        return None if peer == self._server_id else f"it is not {self._server_id}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


def _channel(socket: Path) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
    return grpc.aio.insecure_channel(f"unix:{quote(str(socket))}", options=options)
