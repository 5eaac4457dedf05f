"""Thousands of random policies and requests: what real sidecars do, and say that they would do, is what the reference
model says.

A mesh is made by chance, compiled, and pushed to one sidecar; callers that exist for the whole test then call its pod.
The meshes are the same in every run in CI; elsewhere a run makes new ones and prints what makes them again:
NGINX_MESH_MODEL_SEED. NGINX_MESH_MODEL_MESHES is how many.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from nginx_mesh.api.meta import Object
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.api.pods import Pod as KubernetesPod
from nginx_mesh.api.services import Service
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficTarget
from nginx_mesh.api.spiffe import workload_id
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.compile.engine import compile_state
from nginx_mesh.node.explain import ask_incoming
from nginx_mesh.protocol.explain import Question, Request
from nginx_mesh.protocol.state import Update
from tests.mesh.world import PEERS, TRUST_DOMAIN, Authority, Pod, World
from tests.model.policy import Call, Caller, Reference, Verdict

MESHES = int(os.environ.get("NGINX_MESH_MODEL_MESHES", "600"))
SEED = os.environ.get("NGINX_MESH_MODEL_SEED") or ("ci" if "CI" in os.environ else str(random.randrange(10**9)))
CALLS = 25
HTTP, OTHER_HTTP, TCP, BOTH = 8080, 8081, 9000, 8082

# Accounts are shared on purpose; what is `gone` has an SVID, and no pod in the mesh.
CALLERS = {
    "one": Caller("shop", "web", "10.77.1.1"),
    "two": Caller("shop", "web", "10.77.1.2"),
    "three": Caller("shop", "jobs", "10.77.1.3"),
    "four": Caller("other", "web", "10.77.1.4"),
    "five": Caller("other", "default", "10.77.1.5"),
    "gone": Caller("shop", "web", "10.77.1.6"),
    "plain": Caller("", "", "10.77.1.7", "plaintext"),
    "forger": Caller("shop", "web", "10.77.1.8", "foreign"),
}
# Where PCRE and Python's re say the same.
PATHS = [
    "",
    "*",
    "/",
    "/a",
    "^/a",
    "^/a$",
    "^/api/v[12]/",
    r"\.json$",
    "a|b",
    "^/(a|b)/[^/]+$",
    "^/A",
    "(?i)^/A",
    "x y",
]
TARGETS = [
    "/", "/a", "/b", "/a/b", "/api/v1/x", "/api/v3/x", "/a.json", "/a.json?b", "/q?/a", "/%61", "/A", "/x%20y", "/..a",
    "/a/../b", "/a/%2e%2E/b", "/a%2fb", "/%5Ca", "/.",
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "DELETE"]
HEADERS = {
    "X-Team": ["red", "blue", "dark red"],
    "x-flag": ["1", "on"],
    "Content-Type": ["application/grpc", "text/plain"],
}
HEADER_PATTERNS = {
    "x-team": ["red", "^red$", "^(blue|green)$"],
    "X-Flag": [".*", "^1$"],
    "content-type": ["^application/"],
}


def made(kind: type[Object], namespace: str, name: str, created: int = 0, **rest: Any) -> Any:
    metadata = {"namespace": namespace, "name": name, "creationTimestamp": f"2026-01-01T00:00:{created:02d}Z"}
    metadata |= rest.pop("metadata", {})
    return msgspec.convert({"metadata": metadata, **rest}, kind)


class Chance:
    """A mesh by chance. `number` is in the names of its limits, whose counts outlive a state."""

    def __init__(self, number: int, address: str) -> None:
        self.random = random.Random(f"{SEED}-{number}")
        self.number = number
        self.mode = self.random.choice(["permissive", "permissive", "strict", "off"])
        self.access = self.random.choice(["allow", "allow", "deny"])
        self.server: KubernetesPod = self.pod("shop", "server", "data", address, (HTTP, OTHER_HTTP, TCP, BOTH))
        self.objects: list[Object] = [self.server]
        for name, caller in CALLERS.items():
            if caller.proof == "svid" and name != "gone" and self.random.random() < 0.9:
                account = "" if caller.account == "default" else caller.account
                self.objects.append(self.pod(caller.namespace, name, account, caller.address, (80,)))
        self.objects += [
            made(
                Service,
                "shop",
                "server",
                spec={
                    "clusterIP": "10.96.0.1",
                    "selector": {"app": "server"},
                    "ports": [
                        {"port": 80, "name": "http", "targetPort": HTTP},
                        {"port": 81, "name": "http-b", "targetPort": OTHER_HTTP},
                        {"port": 90, "name": "tcp", "targetPort": TCP},
                        {"port": 82, "name": "http-c", "targetPort": BOTH},
                        {"port": 92, "name": "tcp-c", "targetPort": BOTH},
                    ],
                },
            ),
            *(
                made(
                    Service,
                    namespace,
                    f"{tier}s",
                    spec={"clusterIP": f"10.96.1.{at}", "selector": {"tier": tier}, "ports": [{"port": 80}]},
                )
                for at, (namespace, tier) in enumerate([("shop", "front"), ("shop", "back"), ("other", "front")])
            ),
        ]
        for namespace in ("shop", "other"):
            self.objects += [self.group(namespace, name) for name in ("g1", "g2") if self.random.random() < 0.9]
            if self.random.random() < 0.7:
                self.objects.append(made(TCPRoute, namespace, "tcp"))
        self.objects += [self.target(at) for at in range(self.random.choice([0, 1, 1, 2, 3]))]
        self.objects += [self.limit(at) for at in range(self.random.choice([0, 1, 2, 3, 4]))]
        self.random.shuffle(self.objects)

    def some(self, values: list[Any], most: int = 2) -> list[Any]:
        return self.random.sample(values, self.random.randint(0, min(most, len(values))))

    def pod(self, namespace: str, name: str, account: str, address: str, ports: tuple[int, ...]) -> Any:
        labels = {"app": name, "tier": self.random.choice(["front", "back"])}
        kind = self.random.choice(["deployment", "statefulset", "daemonset", ""])
        if kind:
            labels[f"nsm.nginx.com/{kind}"] = self.random.choice(["w1", "w2"])
        return made(
            KubernetesPod,
            namespace,
            name,
            metadata={"labels": labels, "annotations": {"injector.nsm.nginx.com/status": "injected"}},
            spec={
                "serviceAccountName": account,
                "containers": [
                    {"name": "app", "ports": [{"containerPort": port} for port in ports]},
                    {"name": "nginx-mesh-sidecar"},
                ],
            },
            status={
                "phase": "Running",
                "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        )

    def group(self, namespace: str, name: str) -> Any:
        matches = [
            {
                "name": f"m{at}",
                "pathRegex": self.random.choice(PATHS),
                "methods": self.some([*METHODS, "*"]),
                "headers": {
                    key: self.random.choice(HEADER_PATTERNS[key]) for key in self.some(list(HEADER_PATTERNS), 1)
                },
            }
            for at in range(self.random.randint(1, 3))
        ]
        return made(HTTPRouteGroup, namespace, name, spec={"matches": matches})

    def rules(self) -> list[Any]:
        return [
            {"kind": "HTTPRouteGroup", "name": name, "matches": self.some(["m0", "m1", "m2"])}
            for name in self.some(["g1", "g2"])
        ]

    def target(self, at: int) -> Any:
        namespace = self.random.choice(["shop", "shop", "other"])
        sources = [
            {"kind": "ServiceAccount", "name": name, **({"namespace": where} if where else {})}
            for where, name in self.some([("", "web"), ("shop", "web"), ("shop", "jobs"), ("other", "default")], 3)
        ]
        rules = self.rules()
        if self.random.random() < 0.3:
            rules.insert(0, {"kind": "TCPRoute", "name": "tcp"})
        destination: dict[str, Any] = {"kind": "ServiceAccount", "name": self.random.choice(["data", "data", "web"])}
        destination["namespace"] = self.random.choice(["shop", "shop", ""]) or namespace
        if self.random.random() < 0.3:
            destination["port"] = self.random.choice([HTTP, TCP, BOTH])
        spec = {"destination": destination, "sources": sources, "rules": rules}
        return made(TrafficTarget, namespace, f"t{at}", at, spec=spec)

    def limit(self, at: int) -> Any:
        owner = next(
            (
                {"kind": kind, "name": name}
                for kind in ("Deployment", "StatefulSet", "DaemonSet")
                if (name := self.server.metadata.labels.get(f"nsm.nginx.com/{kind.lower()}"))
            ),
            {"kind": "Deployment", "name": "w1"},
        )
        references = [{"kind": "Service", "name": "server"}, {"kind": "Pod", "name": "server"}, owner]
        sources = self.some(
            [
                {"kind": "Service", "name": "fronts"},
                {"kind": "Service", "name": "fronts", "namespace": "other"},
                {"kind": "Service", "name": "backs"},
                {"kind": "Deployment", "name": "w1"},
                {"kind": "StatefulSet", "name": "w1"},
                {"kind": "Pod", "name": "one"},
                {"kind": "Pod", "name": "two"},
                {"kind": "Pod", "name": "five", "namespace": "other"},
            ],
            3,
        )
        # So slow that a mesh is over before anything leaks, or so fast that nothing is ever refused.
        tight = self.random.random() < 0.8
        spec = {
            "destination": self.random.choice(references),
            "name": "x",
            "sources": sources,
            "rate": "1r/m" if tight else "100000r/s",
            "burst": self.random.choice([0, 1, 3]) if tight else 1000,
            "delay": "nodelay",
            "rules": self.rules() if self.random.random() < 0.5 else [],
        }
        return made(RateLimit, "shop", f"r{self.number}-{at}", self.random.choice([1, 2]), spec=spec)

    def call(self) -> tuple[str, Call]:
        # without mTLS nobody proves anything
        name = "plain" if self.mode == "off" else self.random.choice(list(CALLERS))
        port = self.random.choice([HTTP, HTTP, HTTP, OTHER_HTTP, TCP, BOTH])
        # what is plaintext is HTTP at a port of both
        if port == TCP or (port == BOTH and CALLERS[name].proof != "plaintext" and self.random.random() < 0.5):
            return name, Call(CALLERS[name], port)
        headers = {key: self.random.choice(HEADERS[key]) for key in self.some(list(HEADERS))}
        return name, Call(CALLERS[name], port, self.random.choice(METHODS), self.random.choice(TARGETS), headers)


@dataclass
class Field:
    """A sidecar whose pod serves, and those who call it."""

    world: World
    server: Pod
    callers: subprocess.Popen[str]

    def push(self, chance: Chance) -> None:
        catalog = Catalog()
        for obj in chance.objects:
            catalog.apply(Upsert(obj))
        settings = MeshSettings(mtls_mode=chance.mode, access_control_mode=chance.access, trust_domain=TRUST_DOMAIN)  # type: ignore[arg-type]
        state = compile_state(catalog, settings, chance.server.key)
        assert state is not None
        assert self.server.identity is not None
        state["identity"] = self.server.identity
        version = self.world.next_version()
        answer = self.server.update(Update(base=None, version=version, set_=state))
        assert answer == (200, {"version": version}), answer

    def send(self, calls: list[tuple[str, Call]]) -> list[str]:
        batch = [
            {"caller": name, "port": call.port, "method": call.method, "path": call.path, "headers": dict(call.headers)}
            for name, call in calls
        ]
        assert self.callers.stdin is not None
        assert self.callers.stdout is not None
        self.callers.stdin.write(json.dumps(batch) + "\n")
        self.callers.stdin.flush()
        answers: list[str] = json.loads(self.callers.stdout.readline())
        return answers

    def foretell(self, call: Call) -> Verdict:
        """What the sidecar says would become of a call."""
        caller = call.caller
        proofs = {"svid": str(workload_id(TRUST_DOMAIN, caller.namespace or "x", caller.account or "x")), "foreign": ""}
        question = Question(
            direction="inbound",
            ip=self.server.address,
            port=call.port,
            source=caller.address,
            carried="http" if call.method else "tcp",
            peer=proofs.get(caller.proof),
            request=Request(call.method or "GET", call.path or "/", (("Host", "server"), *call.headers.items())),
        )
        answer = asyncio.run(ask_incoming(self.server.socket_dir / "explain.sock", question))
        if answer.closed is not None:
            return "denied"
        refusals = [check.refusal for check in answer.checks]
        refusals.append(answer.limited.refusal if answer.limited is not None else None)
        meanings: dict[int | None, Verdict] = {400: "bad certificate", 403: "denied", 503: "limited"}
        return next((meanings[refusal.status] for refusal in refusals if refusal is not None), "allowed")


@pytest.fixture(scope="module")
def field() -> Iterator[Field]:
    with World() as world:
        server = world.pod("server", {HTTP: "http", OTHER_HTTP: "http", TCP: "tcp", BOTH: "http"})
        server.identity = world.authority.identity(workload_id(TRUST_DOMAIN, "shop", "data"))
        for port in (HTTP, OTHER_HTTP, BOTH):
            server.serve("http_server", "--port", str(port))
        server.serve("tcp_server", "--port", str(TCP), "--mode", "echo")
        home = world.pod("callers", meshed=False)
        stranger = Authority()
        file: dict[str, Any] = {}
        for name, caller in CALLERS.items():
            home.output("ip", "addr", "add", f"{caller.address}/16", "dev", "eth0")
            cert = None
            if caller.proof != "plaintext":
                issuer = stranger if caller.proof == "foreign" else world.authority
                identity = issuer.identity(workload_id(TRUST_DOMAIN, caller.namespace, caller.account))
                cert = world.directory / f"{name}.pem"
                cert.touch(mode=0o600)
                cert.write_text(identity.svid + identity.key)
            file[name] = {"address": caller.address, "cert": cert and str(cert)}
        listed = world.directory / "callers.json"
        listed.write_text(json.dumps(file))
        argv = home.command(sys.executable, str(PEERS / "callers.py"), server.address, str(listed))
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as callers:
            world.processes.append(callers)
            yield Field(world, server, callers)
            callers.kill()


def verdict(call: Call, answer: str) -> Verdict | str:
    """What an answer means; the answer itself when it is none that a policy gives."""
    if not call.method:
        return {"open": "allowed", "closed": "denied"}.get(answer, answer)
    known: dict[str, Verdict] = {"grpc 7": "denied", "grpc 8": "limited", "grpc 16": "bad certificate"}
    words: dict[str, Verdict] = {
        "403 nginx-mesh: access denied": "denied",
        "503 nginx-mesh: rate limit exceeded": "limited",
        "400 nginx-mesh: ": "bad certificate",
    }
    refusal = known.get(answer) or next((what for start, what in words.items() if answer.startswith(start)), None)
    return refusal or ("allowed" if answer.startswith(("200 ", "404 ")) and "nginx" not in answer else answer)


@pytest.mark.timeout(max(300, MESHES))
def test_sidecars_decide_as_the_reference_model(field: Field) -> None:
    """Access control and rate limits, every mode, kind of caller, destination and source."""
    seen: Counter[str] = Counter()
    for number in range(MESHES):
        chance = Chance(number, field.server.address)
        reference = Reference(chance.objects, chance.mode, chance.access)
        field.push(chance)
        calls = [chance.call() for _ in range(CALLS)]
        began = time.monotonic()
        answers = field.send(calls[:-1])
        foretold = field.foretell(calls[-1][1])
        answers += field.send(calls[-1:])
        for at, ((name, call), answer) in enumerate(zip(calls, answers, strict=True)):
            now = int((time.monotonic() - began) * 1000)
            expected = reference.receive(chance.server, call, now)
            if not call.method and expected == "bad certificate":
                expected = "denied"
            seen[expected] += 1
            if verdict(call, answer) != expected or (at == CALLS - 1 and foretold != expected):
                policies = [o for o in chance.objects if not isinstance(o, Service)]
                story = "\n".join(msgspec.json.encode(obj).decode() for obj in policies)
                pytest.fail(
                    f"NGINX_MESH_MODEL_SEED={SEED}, mesh {number}, call {at}: {answer!r}, and not {expected!r}"
                    f" (the last was foretold as {foretold!r})\n"
                    f"{name}: {call}\n{chance.mode}, {chance.access}\n{story}"
                )
    # the meshes are such that every verdict is a common one
    assert min(seen[each] for each in ("allowed", "denied", "limited", "bad certificate")) > MESHES // 2, seen
