"""What a local mesh says of its policies: refusals, warnings, and whether each is in force on real sidecars."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from nginx_mesh.local.api.store import Store

from .localcli import LocalCli
from .manifests import IDLE_CLIENT, SHOP, traffic_split, traffic_target, web

pytestmark = pytest.mark.mesh

APP = SHOP + web("10.96.5.5", grace=1) + IDLE_CLIENT
LIMIT = """
apiVersion: specs.smi.nginx.com/v1alpha2
kind: RateLimit
metadata: {name: %(name)s, namespace: shop}
spec:
  destination: {kind: Service, name: %(to)s}
  name: ten
  rate: %(rate)s
"""
POLICIES = (
    """
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: routes, namespace: shop}
spec: {matches: [{name: all, pathRegex: ".*", methods: ["*"]}]}
---
apiVersion: specs.smi.nginx.com/v1alpha1
kind: CircuitBreaker
metadata: {name: breaker, namespace: shop}
spec: {destination: {kind: Service, name: web}, errors: 5, timeoutSeconds: 30}
---
"""
    + traffic_target("open", destination="default", source="default", rule="{kind: HTTPRouteGroup, name: routes}")
    + traffic_split("split", "web", {"web": 1})
    + LIMIT % {"name": "limit", "to": "web", "rate": "10r/s"}
)


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as mesh:
        mesh.ok("up")
        mesh.apply(APP)
        mesh.apply(POLICIES)
        mesh.wait_ready()
        yield mesh


def get(mesh: LocalCli, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mesh.ok("get", kind, name, "-n", "shop", "-o", "json"))
    return found


def standing(mesh: LocalCli, kind: str, name: str) -> tuple[str, str, str]:
    """InForce, its reason, and how many of how many sidecars have the policy."""
    status = get(mesh, kind, name).get("status", {})
    condition: dict[str, Any] = next(iter(status.get("conditions", [])), {})
    counts = f"{status.get('updatedSidecars')}/{status.get('sidecars')}"
    return condition.get("status", ""), condition.get("reason", ""), counts


def reaches(mesh: LocalCli, kind: str, name: str, expected: tuple[str, str, str]) -> None:
    mesh.wait(lambda: standing(mesh, kind, name) == expected, 30)


def test_every_policy_says_on_how_many_sidecars_it_is_in_force(mesh: LocalCli) -> None:
    everywhere = ("True", "Acknowledged", "3/3")
    for kind, name, expected in (
        ("ratelimit", "limit", ("True", "Acknowledged", "2/2")),
        ("traffictarget", "open", everywhere),
        ("httproutegroup", "routes", everywhere),
        ("trafficsplit", "split", everywhere),
        ("circuitbreaker", "breaker", everywhere),
    ):
        reaches(mesh, kind, name, expected)
    pods = get(mesh, "ratelimit", "limit")["status"]["pods"]
    assert [pod.rpartition("-")[0].startswith("shop/web") for pod in pods] == [True, True]
    row = mesh.ok("get", "rl", "limit", "-n", "shop").splitlines()[1].split()
    assert row[:5] == ["limit", "service/web", "10r/s", "True", "2/2"]
    described = mesh.ok("describe", "rl", "limit", "-n", "shop")
    assert "Acknowledged" in described
    assert "all sidecars that it concerns have it" in described


def test_a_change_is_another_version_that_sidecars_acknowledge(mesh: LocalCli) -> None:
    reaches(mesh, "ratelimit", "limit", ("True", "Acknowledged", "2/2"))
    before = get(mesh, "ratelimit", "limit")
    mesh.apply(LIMIT % {"name": "limit", "to": "web", "rate": "20r/s"})

    def told() -> bool:
        status = get(mesh, "ratelimit", "limit")["status"]
        return bool(status["observedGeneration"] == before["metadata"]["generation"] + 1)

    mesh.wait(told, 20)
    after = get(mesh, "ratelimit", "limit")
    assert after["status"]["stateVersion"] > before["status"]["stateVersion"]
    assert standing(mesh, "ratelimit", "limit") == ("True", "Acknowledged", "2/2")
    # Nothing else has changed, and a status that is written is no change of the policy.
    time.sleep(1.5)
    assert get(mesh, "ratelimit", "limit") == after


def test_pods_that_come_and_go_are_counted(mesh: LocalCli) -> None:
    mesh.ok("scale", "deployment/web", "--replicas", "3", "-n", "shop")
    reaches(mesh, "ratelimit", "limit", ("True", "Acknowledged", "3/3"))
    reaches(mesh, "trafficsplit", "split", ("True", "Acknowledged", "4/4"))
    mesh.ok("scale", "deployment/web", "--replicas", "2", "-n", "shop")
    reaches(mesh, "ratelimit", "limit", ("True", "Acknowledged", "2/2"))
    reaches(mesh, "trafficsplit", "split", ("True", "Acknowledged", "3/3"))


def test_users_cannot_say_what_the_status_is(mesh: LocalCli) -> None:
    reaches(mesh, "ratelimit", "limit", ("True", "Acknowledged", "2/2"))
    policy = get(mesh, "ratelimit", "limit")
    forged = {**policy, "status": {"conditions": [{"type": "InForce", "status": "False", "reason": "Forged"}]}}
    assert "unchanged" in mesh.apply(json.dumps(forged))
    assert get(mesh, "ratelimit", "limit") == policy


def test_a_clash_is_refused_and_names_the_field(mesh: LocalCli) -> None:
    manifest = LIMIT % {"name": "second", "to": "web", "rate": "10r/s"}
    refused = mesh.fails("apply", "-f", "-", stdin=manifest.encode())
    assert "RateLimit shop/second: spec.destination: RateLimit shop/limit limits callers" in refused
    assert "second" not in mesh.ok("get", "rl", "-n", "shop")


def test_what_a_policy_names_and_is_not_there_is_an_event_until_it_comes(mesh: LocalCli) -> None:
    early = LIMIT % {"name": "early", "to": "later", "rate": "10r/s"}
    applied = mesh.run("apply", "-f", "-", stdin=early.encode())
    warning = "spec.destination: there is no Service shop/later in the mesh"
    assert applied.stdout.endswith("/early created\n")
    assert applied.stderr == f"Warning: stdin document 1: RateLimit shop/early: {warning}\n"
    described = mesh.ok("describe", "rl", "early", "-n", "shop")
    assert "UnknownReference" in described
    assert warning in described
    reaches(mesh, "ratelimit", "early", ("False", "NoSidecars", "0/0"))
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: later, namespace: shop}\n"
    mesh.apply(service + "spec: {selector: {app: web}, ports: [{port: 81, targetPort: 8080}]}\n")
    reaches(mesh, "ratelimit", "early", ("True", "Acknowledged", "2/2"))
    mesh.ok("delete", "rl", "early", "-n", "shop")
    mesh.ok("delete", "svc", "later", "-n", "shop")


def test_a_policy_is_in_force_again_after_the_daemon_was_killed(mesh: LocalCli) -> None:
    reaches(mesh, "ratelimit", "limit", ("True", "Acknowledged", "2/2"))
    version = get(mesh, "ratelimit", "limit")["status"]["stateVersion"]
    os.kill(mesh.daemon_pid(), signal.SIGKILL)
    mesh.wait_ready()
    mesh.wait(lambda: get(mesh, "ratelimit", "limit")["status"]["stateVersion"] > version, 20)
    reaches(mesh, "ratelimit", "limit", ("True", "Acknowledged", "2/2"))


# policies that cannot both count

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: %(name)s, namespace: shop}
spec: {clusterIP: %(ip)s, selector: {app: web}, ports: [{port: 80, targetPort: %(target)s}]}
---
"""
BREAKER = """
apiVersion: specs.smi.nginx.com/v1alpha1
kind: CircuitBreaker
metadata: {name: %(name)s, namespace: shop}
spec: {destination: {kind: Service, name: api}, errors: 9, timeoutSeconds: 30}
---
"""
# Who asks is one of the limits' sources.
ASK = """
import http.client
for host, path in [("10.96.5.6:80", "/")] * 4 + [("127.0.0.1:8886", "/status")]:
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    print(body if path == "/status" else answer.status)
"""
SOURCES = "  sources: [{kind: Pod, name: client}]\n"


def slip_in(mesh: LocalCli, manifest: str) -> None:
    """Store an object that nobody judges, as where a webhook was away. The daemon must not run."""
    store = Store(mesh.paths.state / "store.db", time.time)
    with store.transaction() as tx:
        tx.put(yaml.safe_load(manifest))
    store.close()


def test_of_policies_that_cannot_both_count_the_oldest_does_then_the_first_by_name_whatever_restarts(
    mesh: LocalCli,
) -> None:
    mesh.ok("delete", "-n", "shop", "rl", "limit")
    mesh.apply(
        SERVICE % {"name": "api", "ip": "10.96.5.6", "target": 8080}
        + SERVICE % {"name": "good", "ip": "10.96.5.7", "target": 8080}
        + SERVICE % {"name": "bad", "ip": "10.96.5.8", "target": 9999}
        # of one second; the order in a file says nothing
        + traffic_split("split-n", "api", {"bad": 1})
        + traffic_split("split-m", "api", {"good": 1})
        + "".join(BREAKER % {"name": f"breaker-{letter}"} for letter in "nm")
        + LIMIT % {"name": "limit-m", "to": "api", "rate": "1r/m"}
        + SOURCES
    )
    second = int(time.time())
    mesh.wait(lambda: int(time.time()) > second)
    mesh.apply(traffic_split("split-a", "api", {"bad": 1}) + BREAKER % {"name": "breaker-a"})
    young = LIMIT % {"name": "limit-a", "to": "api", "rate": "1000r/s"} + SOURCES
    assert "RateLimit shop/limit-m limits" in mesh.fails("apply", "-f", "-", stdin=young.encode())
    os.kill(mesh.daemon_pid(), signal.SIGKILL)
    slip_in(mesh, young)
    for _ in range(2):
        mesh.wait_ready()
        for kind, prefix, letters in (("ts", "split", "mna"), ("cb", "breaker", "mna"), ("rl", "limit", "ma")):
            counts = "2/2" if kind == "rl" else "3/3"
            reaches(mesh, kind, f"{prefix}-m", ("True", "Acknowledged", counts))
            for letter in letters[1:]:
                reaches(mesh, kind, f"{prefix}-{letter}", ("False", "WithoutEffect", counts))
                said = mesh.ok("describe", kind, f"{prefix}-{letter}", "-n", "shop")
                assert re.search(rf"Upsert\w+Failed .*{prefix}-m .* already", said), said
        *statuses, status = mesh.ok("exec", "client", "-n", "shop", "--", "python3", "-c", ASK).split("\n", 4)
        # each of the two pods takes one request a minute from the client, whatever restarts
        assert set(statuses) <= {"200", "503"}
        assert statuses.count("503") >= 2
        assert json.loads(status)["circuit_breakers"]["shop/api:80"]["breaker"] == "shop/breaker-m"
        os.kill(mesh.daemon_pid(), signal.SIGKILL)
    mesh.wait_ready()
