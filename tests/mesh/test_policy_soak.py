"""Policies change 100 times a minute under 500 requests per second, and nobody notices but whom they concern.

A meshed client makes HTTP and gRPC requests that every state allows, so that none may fail. A prober beside it asks for
what states forbid and allow by turns: each of its requests is judged by the old state or the new one, and after the
first that was judged by the new, none by the old. NGINX_MESH_SOAK_SECONDS says for how long, 20 s by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from itertools import groupby

import pytest

from .localcli import CTL, LocalCli
from .manifests import traffic_split, traffic_target
from .soak import RATE, Load, Watch, application, ready_pods, sidecar_errors, sidecar_log

pytestmark = pytest.mark.mesh

SECONDS = int(os.environ.get("NGINX_MESH_SOAK_SECONDS", "20"))
CHANGES_PER_MINUTE = 100
# How long a change may take until every sidecar it concerns judges by it, on a machine that is busy.
SETTLED_SECONDS = 2.0

ROUTES = """
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: routes, namespace: shop}
spec:
  matches:
  - {name: load, pathRegex: "^/(?!health)%s", methods: [GET, POST]}
  - {name: probe, pathRegex: "^/health$", headers: {x-probe: "^yes$"}}
"""
LIMIT = """
apiVersion: specs.smi.nginx.com/v1alpha2
kind: RateLimit
metadata: {name: plenty, namespace: shop}
spec: {name: plenty, destination: {kind: Deployment, name: server}, rate: %dr/s, burst: 10000, delay: nodelay}
"""
BREAKER = """
apiVersion: specs.smi.nginx.com/v1alpha1
kind: CircuitBreaker
metadata: {name: fuse, namespace: shop}
spec: {destination: {kind: Service, name: server}, errors: %d, timeoutSeconds: 5}
"""
TWIN = """
apiVersion: v1
kind: Service
metadata: {name: twin, namespace: shop}
spec:
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 50051}]
"""
PROBER = """
import http.client, sys, time
connection, end = http.client.HTTPConnection("server", timeout=10), time.monotonic() + float(sys.argv[1])
seen = []  # told in the end: nobody reads before
while time.monotonic() < end:
    began = time.monotonic()
    connection.request("GET", "/health", headers={"x-probe": "yes"})
    answer = connection.getresponse()
    answer.read()
    seen.append(f"{began} {time.monotonic()} {answer.status}")
    time.sleep(0.01)
print("\\n".join(seen))
"""


def target(name: str, match: str) -> str:
    rule = f"{{kind: HTTPRouteGroup, name: routes, matches: [{match}]}}"
    return traffic_target(name, destination="default", source="default", rule=rule)


@pytest.fixture
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as mesh:
        mesh.ok("up", "--mtls-mode", "strict", "-f", "-", stdin=f"{application()}{TWIN}".encode())
        mesh.apply("---".join([ROUTES % "", target("load", "load")]))
        yield mesh


def change(mesh: LocalCli, number: int) -> None:
    """One change that no request of the load feels."""
    match number % 8:
        case 0:
            mesh.apply(LIMIT % (10_000 + number))
        case 1:
            weight = number % 100
            mesh.apply(traffic_split("canary", "server", {"server": weight, "twin": 100 - weight}))
        case 2:
            mesh.apply(BREAKER % (1000 + number))
        case 3:
            mesh.apply(ROUTES % ("." * (number % 3) + "*" if number % 3 else ""))
        case 4:
            mesh.ok("delete", "trafficsplit", "canary", "-n", "shop", "--ignore-not-found")
        case 5:
            mesh.apply(target(f"more-{number % 5}", "load"))
        case 6:
            mesh.ok("delete", "ratelimit", "plenty", "-n", "shop", "--ignore-not-found")
        case _:
            mesh.ok("delete", "circuitbreaker", "fuse", "-n", "shop", "--ignore-not-found")


def test_policies_change_under_load_and_no_request_meets_anything_but_the_old_or_the_new(mesh: LocalCli) -> None:
    flips: list[tuple[float, float, int]] = [(0.0, 0.0, 403)]
    with Watch(mesh) as watch, Load(mesh, SECONDS) as load:
        command = ["exec", "--name", mesh.name, "client", "-n", "shop", "-c", "load", "--"]
        prober = subprocess.Popen(
            [*CTL, *command, "python3", "-c", PROBER, str(SECONDS - 3)],
            env=mesh.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        began, number = time.monotonic(), 0
        while time.monotonic() < began + SECONDS - 5:
            if number % 4 == 3:
                allowed = flips[-1][2] != 200
                at = time.monotonic()
                if allowed:
                    mesh.apply(target("probe", "probe"))
                else:
                    mesh.ok("delete", "traffictarget", "probe", "-n", "shop")
                flips.append((at, time.monotonic(), 200 if allowed else 403))
            else:
                change(mesh, number)
            number += 1
            time.sleep(max(0.0, began + number * 60 / CHANGES_PER_MINUTE - time.monotonic()))
        output, _ = prober.communicate(timeout=60)
        assert load.runs, "the changes took longer than the load"

    assert number >= (SECONDS - 5) * CHANGES_PER_MINUTE / 60 * 0.7, "changes were too slow for the test to say much"
    report = load.report
    print(json.dumps(report), number)
    assert (report["failed"], report["reasons"]) == (0, {}), sidecar_errors(mesh)
    assert report["ok"] == report["sent"] == RATE * SECONDS
    for name in ready_pods(mesh):
        assert len(watch.seen[name].processes) == 1, "nginx was reloaded or restarted"
        assert "exited on signal" not in sidecar_log(mesh, name)

    probes = [line.split() for line in output.splitlines()]
    assert prober.returncode == 0 and len(probes) > 100, output[-2000:]
    verdicts = [(float(before), float(after), int(status)) for before, after, status in probes]
    # One change of the verdict for each of the policy, in its order.
    assert [status for status, _ in groupby(status for _, _, status in verdicts)] == [flip[2] for flip in flips]
    for before, after, status in verdicts:
        judged = [flip for flip in flips if flip[0] <= after]
        settled = [flip for flip in judged if flip[1] + SETTLED_SECONDS <= before]
        assert status in {flip[2] for flip in judged[max(0, len(settled) - 1) :]}, (before, after, status, flips)
