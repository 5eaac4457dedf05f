"""A strict mesh at work: live settings, names of pods, jobs, health checks, and sidecars that die."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from nginx_mesh.api.conditions import is_ready
from nginx_mesh.local.net import netns
from nginx_mesh.local.node.container import ContainerDir
from tests.eventually import wait_until

from .localcli import LocalCli
from .manifests import SHOP, idle_pod, peers, service, service_account, traffic_target

pytestmark = pytest.mark.mesh

SIDECAR = "nginx-mesh-sidecar"
WEB = "10.96.7.7"
GO = "/tmp/go"  # noqa: S108 - the containers' own
CLIENT_ID = "spiffe://example.org/ns/shop/sa/client"

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      terminationGracePeriodSeconds: 2
      containers:
      - name: web
        command: [python3, /peers/http_server.py]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: peers, mountPath: /peers}]
      volumes: [{name: peers, configMap: {name: peers}}]
---
"""
STATEFUL_SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  replicas: 2
  serviceName: db
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: db
        command: [python3, /peers/http_server.py]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /health, port: http}, periodSeconds: 1}
        volumeMounts: [{name: peers, mountPath: /peers}]
      volumes: [{name: peers, configMap: {name: peers}}]
---
"""
APP = (
    SHOP
    + service_account("client")
    + service_account("web")
    + DEPLOYMENT
    + service("web", "shop", "app: web", address=WEB)
    + STATEFUL_SET
    + service("db", "shop", "app: db", port=8080, address="None")
    + idle_pod("client", account="client")
    + idle_pod("stranger")
    + idle_pod("outsider", "default")
    + peers("http_server.py")
)
# Prints as JSON what the service answers to a name, and who answered.
CALL = """
import http.client, json, sys
connection = http.client.HTTPConnection(*sys.argv[1].split(":"), timeout=5)
connection.request("GET", "/echo")
answer = connection.getresponse()
caller = dict(json.loads(answer.read())["headers"]).get("X-Forwarded-Client-Spiffe-Id")
print(json.dumps([answer.status, answer.headers["X-Served-By"], caller]))
"""
# Asks for SRV records over TCP: prints [target, port] of each.
SRV_OVER_TCP = """
import json, socket, struct, sys
from dnslib import DNSRecord
server = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
query = DNSRecord.question(sys.argv[1], "SRV").pack()
with socket.create_connection((server, 53), 5) as connection, connection.makefile("rb") as stream:
    connection.sendall(struct.pack("!H", len(query)) + query)
    reply = DNSRecord.parse(stream.read(struct.unpack("!H", stream.read(2))[0]))
print(json.dumps(sorted([str(record.rdata.target).rstrip("."), record.rdata.port] for record in reply.rr)))
"""


@dataclass
class Answer:
    """An HTTP answer. `status` is 0 when there was none."""

    status: int
    served_by: str = ""
    body: bytes = b""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as mesh:
        mesh.ok("up", "-f", "-", "--mtls-mode", "strict", stdin=APP.encode())
        yield mesh


@pytest.fixture
def live(mesh: LocalCli) -> Iterator[LocalCli]:
    """The mesh, whose settings the test may change: afterwards they are as before, and no sidecar was restarted."""
    before, processes = mesh.ok("get", "meshconfig", "nginx-mesh-config", "-n", "nginx-mesh", "-o", "yaml"), nginx(mesh)
    yield mesh
    mesh.apply(before)
    assert nginx(mesh) == processes


def pod(mesh: LocalCli, name: str) -> Any:
    return mesh.pod(name, "default" if name == "outsider" else "shop")


def master(mesh: LocalCli, name: str) -> int:
    """The pid of a sidecar's nginx master."""
    directory = mesh.paths.pod_dir(pod(mesh, name)["metadata"]["uid"]) / "containers" / SIDECAR
    pid = ContainerDir(directory).main_pid()
    assert pid is not None
    return pid


def nginx(mesh: LocalCli) -> dict[str, list[int]]:
    """The pids of master and workers of the sidecars that outlast every test."""
    found = {}
    for name in ("client", "stranger", "web", "db-0", "db-1"):
        pid = master(mesh, name)
        found[name] = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return found


def exchange(host: str, port: int, path: str, body: bytes | None = None) -> Answer:
    """One request from where the calling thread is."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers.get("X-Served-By", ""), answer.read())
    except (OSError, http.client.HTTPException):
        return Answer(0)
    finally:
        connection.close()


def request(
    mesh: LocalCli, caller: str, host: str = WEB, path: str = "/bytes/1", *, port: int = 80, body: bytes | None = None
) -> Answer:
    """What a pod gets, as soon as possible: no process is started for it."""
    namespace = mesh.paths.pod_netns(pod(mesh, caller)["metadata"]["uid"])
    return netns.run_in_thread(lambda: exchange(host, port, path, body), namespace)


def call(mesh: LocalCli, caller: str, name: str) -> tuple[int, str, str]:
    """Call a name from inside a pod: the status, the pod that answered, and the caller's ID as it was told."""
    status, served_by, told = json.loads(mesh.ok("exec", caller, "-n", "shop", "--", "python3", "-c", CALL, name))
    return status, served_by, told


def configure(mesh: LocalCli, **spec: object) -> None:
    """Apply a MeshConfig that says just this."""
    whole = {"meshConfigClassName": "nginx-mesh-config-class", "mtls": {"mode": "strict"}, **spec}
    metadata = {"name": "nginx-mesh-config", "namespace": "nginx-mesh"}
    kind = {"apiVersion": "nsm.nginx.com/v1alpha2", "kind": "MeshConfig"}
    mesh.apply(yaml.safe_dump({**kind, "metadata": metadata, "spec": whole}))


def expiry(mesh: LocalCli, name: str) -> float:
    """Seconds until a sidecar's SVID expires."""
    status = json.loads(request(mesh, name, "127.0.0.1", "/status", port=8886).body)
    return float(status["svid_expires"] - time.time())


def log(mesh: LocalCli, name: str) -> str:
    """What a pod's sidecar wrote."""
    return mesh.ok("logs", pod(mesh, name)["metadata"]["name"], "-n", "shop", "-c", SIDECAR)


# settings


def test_the_mode_changes_live_in_every_direction(live: LocalCli) -> None:
    def in_force(mode: str) -> bool:
        called = request(live, "client", path="/echo")
        assert called.status == 200
        identified = CLIENT_ID in called.body.decode()
        let_in = request(live, "outsider").status == 200
        return identified == (mode != "off") and let_in == (mode != "strict")

    assert in_force("strict")
    for mode in ("permissive", "off", "strict", "off", "permissive", "strict"):
        configure(live, mtls={"mode": mode})
        wait_until(partial(in_force, mode), f"mode {mode} is in force", 1)


def test_access_is_denied_and_granted_live(live: LocalCli) -> None:
    configure(live, accessControlMode="deny")
    wait_until(lambda: request(live, "client").status == 403, "access is denied", 1)
    live.apply(traffic_target("client-to-web", destination="web", source="client"))
    wait_until(lambda: request(live, "client").status == 200, "access is granted", 1)
    assert request(live, "stranger").status == 403
    configure(live, accessControlMode="allow")
    live.ok("delete", "traffictarget", "client-to-web", "-n", "shop")
    wait_until(lambda: request(live, "stranger").status == 200, "access is allowed to all", 1)


def test_the_body_limit_changes_live(live: LocalCli) -> None:
    def answered(status: int) -> bool:
        return request(live, "client", path="/upload", body=bytes(3000)).status == status

    for size, status in (("2k", 413), ("3k", 200), ("2999", 413), ("0", 200)):
        configure(live, clientMaxBodySize=size)
        wait_until(partial(answered, status), f"the size {size} is in force", 1)


def test_a_shorter_life_of_svids_takes_effect_at_once(live: LocalCli) -> None:
    configure(live, mtls={"mode": "strict", "svidTTL": "1m"})
    wait_until(lambda: all(expiry(live, name) <= 61 for name in ("client", "web", "db-0")), "all SVIDs are new", 1)
    assert request(live, "client").status == 200
    configure(live, mtls={"mode": "strict", "svidTTL": "2h"})
    assert expiry(live, "client") <= 61, "an SVID that has a while to live is not replaced for its being short"


def test_the_error_log_level_changes_live(live: LocalCli) -> None:
    def written() -> set[tuple[str, str]]:
        """Levels and numbers of connections."""
        return set(re.findall(r"\[(debug|info)\] [0-9]+#[0-9]+: (\*[0-9]+)", log(live, "client")))

    for level, expected in (("debug", {"debug", "info"}), ("warn", set()), ("info", {"info"})):
        configure(live, nginxErrorLogLevel=level)
        time.sleep(1)
        before = {number for _, number in written()}
        assert request(live, "client").status == 200
        time.sleep(0.2)
        assert {severity for severity, number in written() if number not in before} == expected


def test_the_access_log_format_changes_live(live: LocalCli) -> None:
    for number, log_format in enumerate(("json", "default")):
        configure(live, nginxLogFormat=log_format)
        time.sleep(1)
        path = f"/bytes/{number + 7}"
        assert request(live, "client", path=path).status == 200
        time.sleep(2)  # it is written once a second
        (line,) = [line for line in log(live, "client").splitlines() if path in line]
        if log_format == "json":
            entry = json.loads(line)
            assert (entry["path"], entry["status"]) == (path, "200")
            assert entry["upstream_id"] == "spiffe://example.org/ns/shop/sa/web"
        else:
            assert f'"GET {path} HTTP/1.1" 200' in line


def test_the_balancing_method_changes_live(live: LocalCli) -> None:
    def alternates() -> bool:
        names = [request(live, "client").served_by for _ in range(16)]
        return all(first != second for first, second in pairwise(names))

    configure(live, nginxLBMethod="round_robin")
    wait_until(alternates, "round_robin is in force", 1)
    configure(live, nginxLBMethod="random")
    wait_until(lambda: not alternates(), "random is in force", 1)


def test_every_setting_is_kept_and_shown(live: LocalCli) -> None:
    spec = {
        "meshConfigClassName": "nginx-mesh-config-class",
        "accessControlMode": "allow",
        "clientMaxBodySize": "5m",
        "mtls": {"mode": "strict", "caTTL": "48h", "svidTTL": "30m", "caKeyType": "ec-p384"},
        "nginxErrorLogLevel": "error",
        "nginxLBMethod": "random two least_time=last_byte",
        "nginxLogFormat": "json",
        "prometheusAddress": "prometheus.monitoring:9090",
        "telemetry": {"exporters": {"otlp": {"host": "collector.monitoring", "port": 4317}}, "samplerRatio": 0.5},
    }
    configure(live, **spec)
    shown = yaml.safe_load(live.ok("get", "meshconfig", "nginx-mesh-config", "-n", "nginx-mesh", "-o", "yaml"))
    assert shown["spec"] == spec
    assert request(live, "client").status == 200


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.clientMaxBodySize", {"clientMaxBodySize": "1x"}),
        ("spec.mtls.svidTTL", {"mtls": {"svidTTL": "10s"}}),
        ("spec.mtls.caTTL", {"mtls": {"caTTL": "1h"}}),
        ("spec.mtls.mode", {"mtls": {"mode": "loose"}}),
        ("spec.nginxLBMethod", {"nginxLBMethod": "fastest"}),
        ("spec.prometheusAddress", {"prometheusAddress": "nowhere"}),
        ("spec.telemetry.samplerRatio", {"telemetry": {"samplerRatio": 2}}),
        ("spec.accessControlMod", {"accessControlMod": "deny"}),
    ],
)
def test_a_wrong_setting_is_refused_and_changes_nothing(live: LocalCli, field: str, spec: dict[str, object]) -> None:
    before = live.ok("get", "meshconfig", "-A", "-o", "yaml")
    metadata = {"name": "nginx-mesh-config", "namespace": "nginx-mesh"}
    whole = {"apiVersion": "nsm.nginx.com/v1alpha2", "kind": "MeshConfig", "metadata": metadata}
    whole["spec"] = {"meshConfigClassName": "nginx-mesh-config-class", **spec}
    said = live.fails("apply", "-f", "-", stdin=yaml.safe_dump(whole).encode())
    assert field in said and "MeshConfig" in said
    assert live.ok("get", "meshconfig", "-A", "-o", "yaml") == before


# names


def test_a_headless_service_is_called_through_the_mesh(mesh: LocalCli) -> None:
    answers = {call(mesh, "client", "db.shop.svc.cluster.local:8080") for _ in range(6)}
    assert {served_by for _, served_by, _ in answers} <= {"db-0", "db-1"}
    assert {(status, told) for status, _, told in answers} == {(200, CLIENT_ID)}


def test_a_pod_of_a_stateful_set_is_called_by_its_name(mesh: LocalCli) -> None:
    for name in ("db-0", "db-1"):
        assert call(mesh, "client", f"{name}.db:8080") == (200, name, CLIENT_ID)
        assert call(mesh, "client", f"{name}.db.shop.svc.cluster.local:8080") == (200, name, CLIENT_ID)


def test_a_pod_of_a_stateful_set_keeps_its_name_when_it_is_replaced(mesh: LocalCli) -> None:
    before = pod(mesh, "db-1")["metadata"]["uid"]
    mesh.ok("delete", "pod", "db-1", "-n", "shop")
    mesh.wait(lambda: "db-1" in mesh.pods() and pod(mesh, "db-1")["metadata"]["uid"] != before)
    mesh.wait_ready()
    mesh.wait(lambda: call(mesh, "client", "db-1.db:8080") == (200, "db-1", CLIENT_ID), 8)


def test_srv_records_over_tcp_name_what_can_be_called(mesh: LocalCli) -> None:
    def srv(name: str) -> list[list[Any]]:
        found: list[list[Any]] = json.loads(
            mesh.ok("exec", "client", "-n", "shop", "--", "python3", "-c", SRV_OVER_TCP, name)
        )
        return found

    domain = "shop.svc.cluster.local"
    assert srv(f"_http._tcp.db.{domain}") == [[f"db-0.db.{domain}", 8080], [f"db-1.db.{domain}", 8080]]
    assert srv(f"_http._tcp.web.{domain}") == [[f"web.{domain}", 80]]
    for target, port in srv(f"_http._tcp.db.{domain}"):
        assert call(mesh, "client", f"{target}:{port}") == (200, target.partition(".")[0], CLIENT_ID)


def test_the_outsider_reaches_neither_headless_pods_nor_services(mesh: LocalCli) -> None:
    address = pod(mesh, "db-0")["status"]["podIP"]
    assert request(mesh, "client", address, port=8080).status == 200
    assert request(mesh, "outsider", address, port=8080).status == 400
    assert request(mesh, "outsider").status == 400


# jobs


def test_a_job_calls_a_service_and_completes(mesh: LocalCli) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "caller", "namespace": "shop"},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": "client",
                    "containers": [{"name": "main", "command": ["python3", "-c", CALL, "web"]}],
                }
            },
        },
    }
    mesh.apply(yaml.safe_dump(job))
    mesh.wait(lambda: "1/1" in mesh.ok("get", "job", "caller", "-n", "shop"), 20)
    status, served_by, told = json.loads(mesh.ok("logs", "job/caller", "-n", "shop"))
    assert (status, told) == (200, CLIENT_ID)
    assert served_by.startswith("web-")
    finished = pod(mesh, "caller")
    assert finished["status"]["phase"] == "Succeeded"
    mesh.ok("delete", "job", "caller", "-n", "shop")
    mesh.wait(lambda: finished["metadata"]["name"] not in mesh.pods())


# health checks

# Listens once the file /tmp/go is there.
LATE = """
import os, socket, time
while not os.path.exists("/tmp/go"): time.sleep(0.02)
server = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
while True: server.accept()[0].close()
"""


def states(mesh: LocalCli, name: str) -> dict[str, tuple[bool, int]]:
    """Whether each container is ready, and how often it was restarted."""
    statuses = pod(mesh, name)["status"].get("containerStatuses", [])
    return {status["name"]: (status.get("ready", False), status.get("restartCount", 0)) for status in statuses}


def asked_at_every_address(mesh: LocalCli, name: str, container: str) -> set[int]:
    """What a pod's sidecar says of a container's readiness, IPv4 and IPv6."""
    path = f"/health-redirects/{container}/readiness"
    addresses = [entry["ip"] for entry in pod(mesh, name)["status"]["podIPs"]]
    return {
        netns.run_in_thread(partial(exchange, address, 8895, path), mesh.paths.node_netns).status
        for address in addresses
    }


def apply_pod(mesh: LocalCli, name: str, *containers: dict[str, object], **spec: object) -> None:
    peers = [{"name": "peers", "configMap": {"name": "peers"}}]
    whole = {"containers": list(containers), "volumes": peers, "terminationGracePeriodSeconds": 1, **spec}
    metadata = {"name": name, "namespace": "shop"}
    mesh.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}))


def container(name: str, *command: str, **fields: object) -> dict[str, object]:
    mounts = [{"name": "peers", "mountPath": "/peers"}]
    return {"name": name, "command": list(command), "volumeMounts": mounts, **fields}


def test_health_checks_of_every_kind_ask_the_application(mesh: LocalCli) -> None:
    server = ("python3", "/peers/http_server.py", "--port")
    apply_pod(
        mesh,
        "checked",
        container(
            "http",
            *(*server, "8081"),
            ports=[{"containerPort": 8081}],
            startupProbe={"httpGet": {"path": "/health", "port": 8081}, "periodSeconds": 1, "failureThreshold": 30},
            readinessProbe={"httpGet": {"path": "/status/204", "port": 8081}, "periodSeconds": 1},
            livenessProbe={"httpGet": {"path": "/health", "port": 8081}, "periodSeconds": 1},
        ),
        container(
            "unwell",
            *(*server, "8082"),
            ports=[{"name": "web", "containerPort": 8082}],
            readinessProbe={"httpGet": {"path": "/status/500", "port": "web"}, "periodSeconds": 1},
        ),
        container(
            "tcp",
            *("python3", "-c", LATE),
            ports=[{"containerPort": 9000}],
            readinessProbe={"tcpSocket": {"port": 9000}, "periodSeconds": 1},
        ),
        container(
            "exec",
            *("sleep", "infinity"),
            readinessProbe={"exec": {"command": ["test", "-e", GO]}, "periodSeconds": 1},
        ),
    )
    expected = {"http": (True, 0), "unwell": (False, 0), "tcp": (False, 0), "exec": (False, 0), SIDECAR: (True, 0)}
    mesh.wait(lambda: states(mesh, "checked") == expected)
    time.sleep(2)
    assert states(mesh, "checked") == expected
    assert asked_at_every_address(mesh, "checked", "tcp") == {503}
    for name in ("tcp", "exec"):
        mesh.ok("exec", "checked", "-n", "shop", "-c", name, "--", "touch", GO)
        expected[name] = (True, 0)
        mesh.wait(lambda: states(mesh, "checked") == expected, 5)
    assert asked_at_every_address(mesh, "checked", "tcp") == {200}
    assert "statuscode: 500" in mesh.ok("describe", "pod", "checked", "-n", "shop")
    mesh.ok("exec", "checked", "-n", "shop", "-c", "exec", "--", "rm", GO)
    expected["exec"] = (False, 0)
    mesh.wait(lambda: states(mesh, "checked") == expected, 8)
    mesh.ok("delete", "pod", "checked", "-n", "shop")


def test_an_application_that_is_not_alive_is_restarted_alone(mesh: LocalCli) -> None:
    check = {"httpGet": {"path": "/status/503", "port": 8081}, "periodSeconds": 1, "failureThreshold": 2}
    apply_pod(
        mesh,
        "sick",
        container(
            "main",
            *("python3", "/peers/http_server.py", "--port", "8081"),
            ports=[{"containerPort": 8081}],
            livenessProbe={**check, "initialDelaySeconds": 1},
        ),
    )
    mesh.wait(lambda: states(mesh, "sick").get("main", (False, 0))[1] > 0)
    assert states(mesh, "sick")[SIDECAR] == (True, 0)
    mesh.ok("delete", "pod", "sick", "-n", "shop")


# sidecars that die


def test_a_killed_sidecar_of_a_server_starts_again_and_nobody_notices(mesh: LocalCli) -> None:
    name = pod(mesh, "web")["metadata"]["name"]
    os.kill(master(mesh, name), signal.SIGKILL)
    deadline = time.monotonic() + 3
    statuses: list[int] = []
    while time.monotonic() < deadline:
        statuses.append(request(mesh, "client").status)
    assert set(statuses) == {200}
    mesh.wait(lambda: is_ready(pod(mesh, name)) and states(mesh, name)[SIDECAR] == (True, 1))
    assert states(mesh, name)["web"] == (True, 0)
    mesh.wait(lambda: name in {request(mesh, "client").served_by for _ in range(8)}, 15)


def test_a_killed_sidecar_of_a_client_starts_again_and_lets_nothing_past_meanwhile(mesh: LocalCli) -> None:
    killed = master(mesh, "client")
    assert request(mesh, "client", path="/echo").status == 200
    os.kill(killed, signal.SIGKILL)
    statuses: list[int] = []
    deadline = time.monotonic() + 15
    while not statuses or statuses[-1] != 200:
        assert time.monotonic() < deadline, statuses
        answer = request(mesh, "client", path="/echo")
        statuses.append(answer.status)
        assert answer.status != 200 or CLIENT_ID in answer.body.decode()
    assert set(statuses) <= {0, 503, 200}
    mesh.wait(lambda: states(mesh, "client")[SIDECAR] == (True, 1))
    assert master(mesh, "client") != killed
