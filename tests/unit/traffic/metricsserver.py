"""Runs `nginx-mesh-metrics` as a process, with a CA for its certificate and a CA for front proxies."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp.test_utils import unused_port
from cryptography import x509

from tests.unit.identity.server.federation.web_pki import WebCa

PROCESS = [sys.executable, "-c", "from nginx_mesh.traffic.process import main; main()"]
USER = {"X-Remote-User": "jane", "X-Remote-Group": "developers"}
PROXY = "127.0.0.7"


class Server:
    """A process, its files in `directory`, and clients of it."""

    def __init__(self, directory: Path, prometheus: int = 0) -> None:
        self.directory = directory
        self.port = unused_port()
        self.prometheus = prometheus or unused_port()
        self.ca = WebCa(directory, "serving")
        self.ca.issue(directory / "tls.crt", directory / "tls.key")
        self.proxies = WebCa(directory, "proxies")
        self.issue("proxy", self.proxies, PROXY)

    def issue(self, name: str, ca: WebCa, common_name: str) -> str:
        ca.issue(self.directory / f"{name}.crt", self.directory / f"{name}.key", common_name)
        return name

    def arguments(self, *certificate: str) -> list[str]:
        return [
            f"--listen=127.0.0.1:{self.port}",
            f"--prometheus-address=127.0.0.1:{self.prometheus}",
            f"--requestheader-client-ca-file={self.directory / 'proxies.pem'}",
            f"--requestheader-allowed-names=somebody,{PROXY}",
            *(certificate or self.files()),
        ]

    def files(self) -> list[str]:
        return [
            f"--tls-cert-file={self.directory / 'tls.crt'}",
            f"--tls-private-key-file={self.directory / 'tls.key'}",
        ]

    @asynccontextmanager
    async def running(self, *certificate: str) -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(*PROCESS, *self.arguments(*certificate))
        try:
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            assert await process.wait() == 0

    def context(self, client: str = "", roots: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=roots or self.ca.file.read_text())
        context.check_hostname = not roots
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if client:
            context.load_cert_chain(self.directory / f"{client}.crt", self.directory / f"{client}.key")
        return context

    async def get(
        self, path: str, client: str = "", headers: Mapping[str, str] = USER, roots: str = ""
    ) -> tuple[int, Any, x509.Certificate]:
        """Status, content and the server's certificate. Waits for a process that has just begun."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return await asyncio.to_thread(self._get, path, self.context(client, roots), headers)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    def _get(self, path: str, context: ssl.SSLContext, headers: Mapping[str, str]) -> tuple[int, Any, x509.Certificate]:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)
        try:
            connection.connect()
            shown = x509.load_der_x509_certificate(connection.sock.getpeercert(True) or b"")
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            content = answer.read().decode()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(content) if is_json else content, shown
        finally:
            connection.close()
