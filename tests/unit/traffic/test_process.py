"""`nginx-mesh-metrics` as a process: authentication, certificates, and errors without a Prometheus."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.identity.agent.workloadapi.server import WorkloadApiServer
from nginx_mesh.identity.common.x509svid import certificate_pem
from nginx_mesh.traffic.documents import API_VERSION
from nginx_mesh.traffic.frontproxy import FrontProxy, UnauthorizedError
from tests.unit.identity.agent.workloadapi.source import Workload
from tests.unit.identity.server.federation.web_pki import WebCa

from ..identity.domains import Domain
from .metricsserver import PROCESS, PROXY, USER, Server

BASE = f"/apis/{API_VERSION}"
OTHER = "127.0.0.8"


async def test_only_the_front_proxy_gets_metrics(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.issue("other", server.proxies, OTHER)
    server.issue("forged", WebCa(tmp_path, "forgers"), PROXY)
    namespaces = f"{BASE}/namespaces"
    async with server.running():
        for client, headers, reason in (
            ("", USER, "no client certificate"),
            ("other", USER, "the client certificate is not that of a front proxy"),
            ("proxy", {}, "no header X-Remote-User"),
            ("proxy", {"X-Remote-User": ""}, "no header X-Remote-User"),
        ):
            for path in (namespaces, BASE, "/apis", "/nothing", "/metrics/../apis"):
                status, said, _ = await server.get(path, client, headers)
                assert (status, said["reason"], said["message"]) == (401, "Unauthorized", f"Unauthorized: {reason}")
        with pytest.raises(OSError, match=r"alert|reset|closed"):
            await server.get(namespaces, "forged")

        status, said, _ = await server.get(namespaces, "proxy")
        assert (status, said["kind"], said["reason"]) == (503, "Status", "ServiceUnavailable")
        assert said["message"] == f"Prometheus at 127.0.0.1:{server.prometheus} does not answer: Connection refused"
        assert (await server.get(BASE, "proxy"))[1]["kind"] == "APIResourceList"
        assert (await server.get("/apis", "proxy"))[1]["groups"][0]["name"] == "metrics.smi-spec.io"
        status, said, _ = await server.get("/openapi/v2", "proxy")
        assert (status, said["kind"], said["reason"]) == (404, "Status", "NotFound")


async def test_health_readiness_and_own_metrics_need_no_client_certificate(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.running():
        assert (await server.get("/healthz"))[:2] == (200, {"status": "ok"})
        # Without a Prometheus too: an API service that is not available gets in the way of all of Kubernetes.
        assert (await server.get("/readyz"))[:2] == (200, {"ready": True, "parts": {"certificate": "ok"}})
        await server.get(f"{BASE}/namespaces", "proxy")
        status, metrics, shown = await server.get("/metrics")
        assert status == 200
        assert 'nginx_mesh_prometheus_queries_total{result="failed"} 1.0' in metrics
        assert 'nginx_mesh_traffic_metrics_requests_total{code="503"} 1.0' in metrics
        (expiry,) = [line for line in metrics.splitlines() if line.startswith("nginx_mesh_serving_certificate_expiry")]
        assert float(expiry.split()[1]) == shown.not_valid_after_utc.timestamp()


async def test_changed_certificate_files_are_loaded_and_broken_ones_are_not(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.running():
        serial = (await server.get("/healthz"))[2].serial_number
        renewed = server.ca.issue(tmp_path / "tls.crt", tmp_path / "tls.key")
        assert renewed != serial
        assert (await server.get("/healthz"))[2].serial_number == renewed
        (tmp_path / "tls.key").write_text("no key")
        assert (await server.get("/healthz"))[2].serial_number == renewed
        assert (await server.get("/readyz"))[0] == 200
        (tmp_path / "tls.crt").unlink()
        assert (await server.get("/healthz"))[2].serial_number == renewed
        renewed = server.ca.issue(tmp_path / "tls.crt", tmp_path / "tls.key")
        assert (await server.get("/healthz"))[2].serial_number == renewed

        successor = WebCa(tmp_path, "successor")
        server.issue("next", successor, PROXY)
        assert (await server.get(BASE, "proxy"))[0] == 200
        shutil.copy(successor.file, server.proxies.file)
        assert (await server.get(BASE, "next"))[0] == 200
        with pytest.raises(OSError, match=r"alert|reset|closed"):
            await server.get(BASE, "proxy")


async def test_the_workload_api_gives_the_certificate_and_renews_it(tmp_path: Path) -> None:
    server = Server(tmp_path)
    workload = Workload(Domain(), "/ns/nginx-mesh/sa/nginx-mesh-metrics")
    socket = Path("/tmp") / f"nsm-{secrets.token_hex(4)}.sock"  # noqa: S108 - the name of a socket is short
    api = WorkloadApiServer(workload, socket)
    await api.start()
    try:
        async with server.running(f"--workload-api={socket}"):
            roots = certificate_pem(workload.domain.authorities[0])
            for _ in range(2):
                assert workload.context is not None
                wanted, deadline = workload.context.svids[0].chain[0], time.monotonic() + 30
                while True:
                    try:
                        if (await server.get("/readyz", roots=roots))[2] == wanted:
                            break
                    except OSError:
                        pass  # as long as it has none
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
                workload.renew()
    finally:
        await api.close()


@pytest.mark.parametrize(
    ("gone", "flag"), [("proxies.pem", "--requestheader-client-ca-file"), ("tls.key", "--tls-cert-file")]
)
def test_the_server_does_not_start_with_unusable_files(tmp_path: Path, gone: str, flag: str) -> None:
    server = Server(tmp_path)
    (tmp_path / gone).write_text("")
    done = subprocess.run([*PROCESS, *server.arguments()], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {flag}: " in done.stderr
    assert "Traceback" not in done.stderr


CERTIFICATE: dict[str, Any] = {
    "notAfter": "Nov 24 22:00:00 2026 GMT",
    "subject": ((("organizationName", "k8s"),), (("commonName", "front-proxy-client"),)),
}
NOW = ssl.cert_time_to_seconds("Nov 24 21:59:59 2026 GMT")


def test_the_user_is_in_the_first_header_that_is_present() -> None:
    proxy = FrontProxy(frozenset(["front-proxy-client"]), ("X-Remote-User", "X-User"))
    assert proxy.user(CERTIFICATE, {"X-Remote-User": "jane", "X-User": "joe"}, NOW) == "jane"
    assert proxy.user(CERTIFICATE, {"X-User": "joe"}, NOW) == "joe"
    assert FrontProxy(frozenset()).user(CERTIFICATE, USER, NOW) == "jane"


@pytest.mark.parametrize(
    ("certificate", "now"),
    [
        (None, NOW),
        ({}, NOW),
        (CERTIFICATE, NOW + 1),
        ({**CERTIFICATE, "subject": ()}, NOW),
        ({**CERTIFICATE, "subject": ((("commonName", "front-proxy-client"),), (("commonName", "x"),))}, NOW),
        ({**CERTIFICATE, "subject": ((("commonName", "front-proxy-client\0x"),),)}, NOW),
    ],
)
def test_a_client_certificate_that_is_not_allowed_is_refused(certificate: Any, now: float) -> None:
    with pytest.raises(UnauthorizedError):
        FrontProxy(frozenset(["front-proxy-client"])).user(certificate, USER, now)
