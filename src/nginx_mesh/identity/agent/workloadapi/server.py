"""The SPIFFE Workload API: gRPC on a unix socket.

Whoever can reach a socket is taken for the workload that it was made for; nothing else identifies a caller. So each
workload has a server of its own, which costs 16 KiB and no thread, as all servers of a process share those of gRPC.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError
from nginx_mesh.identity.common.jwtsvid import MAX_AUDIENCE, JwtError, validate
from nginx_mesh.identity.common.workload import JwtRefusedError, WorkloadContext, WorkloadSource

from . import messages
from . import workload_pb2 as pb

log = logging.getLogger(__name__)

SERVICE = "SpiffeWorkloadAPI"
SECURITY_HEADER = ("workload.spiffe.io", "true")
MAX_REQUEST_BYTES = 64 << 10
MAX_STREAMS = 64
MAX_CONNECTIONS = 64
MAX_CALLS = 256
MAX_PATH_BYTES = 107

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    # A client that is silent, or that keeps a connection without a call, has to make room for others.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.so_reuseport", 0),
]

_NO_IDENTITY = "no identity issued"

Call = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request", bound=Message)


class WorkloadApiServer:
    """Serves one workload on one socket. `path` is at most 107 bytes long; its directory exists, and admits callers.

    `mode`, `uid` and `gid` are the socket's; -1 leaves an owner as it is.
    """

    def __init__(
        self,
        source: WorkloadSource,
        path: Path,
        *,
        mode: int = 0o777,
        uid: int = -1,
        gid: int = -1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = _Service(source, clock)
        self._path, self._mode, self._uid, self._gid = path, mode, uid, gid
        self._server: grpc.aio.Server | None = None
        self._inode = 0

    async def start(self) -> None:
        """Listen. A socket that a predecessor left is replaced atomically. Raises OSError."""
        # gRPC sets no mode, and would unlink a predecessor. So the socket gets another name first, then is renamed.
        new = self._path.with_name(f".{secrets.token_hex(4)}")
        if len(os.fsencode(self._path)) > MAX_PATH_BYTES or len(os.fsencode(new)) > MAX_PATH_BYTES:
            raise OSError(f"socket {self._path}: its path is longer than {MAX_PATH_BYTES} bytes")
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        server.add_generic_rpc_handlers((self._service.handlers(),))
        try:
            server.add_insecure_port(f"unix:{quote(os.fsencode(new))}")
        except RuntimeError:
            raise OSError(f"socket {self._path}: cannot listen in its directory") from None
        try:
            os.chown(new, self._uid, self._gid)
            new.chmod(self._mode)
            await server.start()
            self._inode = new.stat().st_ino
            new.replace(self._path)
        except BaseException:
            await server.stop(None)
            new.unlink(missing_ok=True)
            raise
        self._server = server

    async def close(self) -> None:
        """End all calls (UNAVAILABLE, so that clients come back) and remove the socket, if it still is ours."""
        if self._server is None:
            return
        server, self._server = self._server, None
        with contextlib.suppress(FileNotFoundError):
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        await server.stop(None)


class _Service:
    def __init__(self, source: WorkloadSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock

    def handlers(self) -> grpc.GenericRpcHandler:
        """All methods but those of the WIT profile, for which gRPC answers UNIMPLEMENTED, as the standard demands."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods: dict[str, Any] = {
            "FetchX509SVID": stream(self._streaming(pb.X509SVIDRequest, messages.x509_svids)),
            "FetchX509Bundles": stream(self._streaming(pb.X509BundlesRequest, messages.x509_bundles)),
            "FetchJWTBundles": stream(self._streaming(pb.JWTBundlesRequest, messages.jwt_bundles)),
            "FetchJWTSVID": unary(self._fetch_jwt_svid),
            "ValidateJWTSVID": unary(self._validate_jwt_svid),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _streaming(self, request: type[Message], answer: Callable[[WorkloadContext], Message]) -> Any:
        async def handle(data: bytes, call: Call) -> AsyncIterator[bytes]:
            await _admit(call, request, data)
            sent = b""
            async with contextlib.aclosing(self._contexts(call)) as contexts:
                async for context in contexts:
                    try:
                        response = answer(context).SerializeToString(deterministic=True)
                    except Exception:
                        await _fail(call, "could not put an answer together")
                    # Some changes of what a workload holds do not concern this stream.
                    if response != sent:
                        yield response
                        sent = response

        return handle

    async def _fetch_jwt_svid(self, data: bytes, call: Call) -> bytes:
        request = await _admit(call, pb.JWTSVIDRequest, data)
        audience = list(request.audience)
        if not audience or not all(audience):
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "audience must be specified")
        if len(audience) > MAX_AUDIENCE:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, f"audience has more than {MAX_AUDIENCE} values")
        try:
            spiffe_id = SpiffeId.parse(request.spiffe_id) if request.spiffe_id else None
        except SpiffeIdError as error:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, f"invalid requested SPIFFE ID: {error}")
        try:
            svids = await self._source.jwt_svids(audience, spiffe_id)
        except JwtRefusedError as error:
            refused = grpc.StatusCode.UNAVAILABLE if error.unavailable else grpc.StatusCode.PERMISSION_DENIED
            await call.abort(refused, str(error))
        except JwtError as error:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception:
            await _fail(call, "could not fetch JWT-SVID")
        if not svids:
            await call.abort(grpc.StatusCode.PERMISSION_DENIED, _NO_IDENTITY)
        return messages.jwt_svids(svids).SerializeToString()

    async def _validate_jwt_svid(self, data: bytes, call: Call) -> bytes:
        request = await _admit(call, pb.ValidateJWTSVIDRequest, data)
        for field in ("audience", "svid"):
            if not getattr(request, field):
                await call.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{field} must be specified")
        async with contextlib.aclosing(self._contexts(call)) as contexts:
            context = await anext(contexts)
        own = {svid.spiffe_id.trust_domain for svid in context.svids}
        try:
            claims = validate(request.svid, request.audience, context.bundles, self._clock())
            return messages.validated(claims, own).SerializeToString()
        except ValueError as error:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _contexts(self, call: Call) -> AsyncGenerator[WorkloadContext]:
        """What the workload holds, now and after every change. Ends by aborting the call, with the reason."""
        updates = self._source.updates()
        try:
            while True:
                try:
                    context = await anext(updates)
                except StopAsyncIteration:
                    await call.abort(grpc.StatusCode.UNAVAILABLE, "the Workload API is shutting down")
                except Exception:
                    await _fail(call, "could not fetch what the workload holds")
                if context is None or not context.svids:
                    await call.abort(grpc.StatusCode.PERMISSION_DENIED, _NO_IDENTITY)
                yield context
        finally:
            if isinstance(updates, AsyncGenerator):
                await updates.aclose()


async def _admit(call: Call, request: type[Request], data: bytes) -> Request:
    """The request, if it has the security header, which a client that was tricked into a request (SSRF) lacks."""
    key, value = SECURITY_HEADER
    if [v for k, v in call.invocation_metadata() or () if k == key] != [value]:
        await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
    try:
        return request.FromString(data)
    except DecodeError:
        await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "request is malformed")


async def _fail(call: Call, message: str) -> NoReturn:
    """Log the error that is being handled, which is our fault, and abort the call."""
    log.exception("Workload API: %s", message)
    await call.abort(grpc.StatusCode.UNAVAILABLE, message)
