"""1,000 TrafficTargets, 200 HTTPRouteGroups and 200 RateLimits over 300 Services: a change reaches whom it concerns.

One of the 300 pods is real, with its sidecar. How long a change takes is printed; the bound is for a busy machine too.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.spiffe import workload_id
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Delete, Upsert
from nginx_mesh.compile.engine import ChangedSidecars, Compiler
from nginx_mesh.node.overlay import IdentityOverlay
from tests.unit.compile import objects

from .world import PEERS, TRUST_DOMAIN, Pod, World

SERVICES, TARGETS, GROUPS, LIMITS = 300, 1000, 200, 200
REAL = 7
WITHIN_SECONDS = 0.3


def pod_of(number: int) -> ObjectKey:
    return objects.pod_key(f"app{number}")


def group(number: int, path: str) -> Object:
    return objects.group(f"g{number}", {"name": "m", "pathRegex": path, "methods": ["GET"]})


def target(number: int) -> Object:
    service, caller = number % SERVICES, (number * 7 + 1) % SERVICES
    return objects.target(f"t{number}", f"a{service}", [f"a{caller}"], objects.http(f"g{number % GROUPS}"))


def limit(number: int, rate: str = "1000r/s") -> Object:
    rules = [objects.http(f"g{number}")] if number % 2 else []
    return objects.limit(f"r{number}", ("Service", f"s{number}"), rate, *rules, burst=1000, delay="nodelay")


def mesh(address: str) -> Iterator[Object]:
    for number in range(SERVICES):
        ip = address if number == REAL else f"10.1.{number // 200}.{number % 200 + 1}"
        labels = {"app": f"s{number}"}
        yield objects.pod(f"app{number}", ips=[ip], labels=labels, account=f"a{number}", ports=[(8080, "http")])
        vip = f"10.97.{number // 200}.{number % 200 + 1}"
        yield objects.service(f"s{number}", objects.port(80, "http", target=8080), vips=[vip])
    yield from (group(number, f"^/v{number}/") for number in range(GROUPS))
    yield from (target(number) for number in range(TARGETS))
    yield from (limit(number) for number in range(LIMITS))


@dataclass
class Scale:
    """The mesh, and the sidecar that is real."""

    catalog: Catalog
    compiler: Compiler
    overlay: IdentityOverlay
    server: Pod
    version: int
    caller: subprocess.Popen[str]

    def change(self, obj: Object | Delete) -> ChangedSidecars:
        return self.compiler.apply(self.catalog.apply(obj if isinstance(obj, Delete) else Upsert(obj)))

    def push(self) -> None:
        update = self.overlay.update_for(pod_of(REAL), self.version or None)
        assert update is not None
        assert self.server.update(update) == (200, {"version": update.version})
        self.version = update.version

    def ask(self) -> str:
        """What a caller gets that t7 and t607 let in, over a connection that it keeps."""
        call = {"caller": "x", "port": 8080, "method": "GET", "path": f"/v{REAL}/x", "headers": {}}
        assert self.caller.stdin is not None
        assert self.caller.stdout is not None
        self.caller.stdin.write(json.dumps([call]) + "\n")
        self.caller.stdin.flush()
        answer: str = json.loads(self.caller.stdout.readline())[0]
        return answer[:3]


@pytest.fixture(scope="module")
def scale() -> Iterator[Scale]:
    with World() as world:
        server = world.pod("server", {8080: "http"})
        catalog = Catalog()
        for obj in mesh(server.address):
            catalog.apply(Upsert(obj))
        compiler = Compiler(catalog, MeshSettings(access_control_mode="deny"), first_version=time.time_ns() // 10**6)
        overlay = IdentityOverlay(compiler.update_for, compiler.version)
        overlay.set_identity(pod_of(REAL), world.authority.identity(workload_id(TRUST_DOMAIN, "default", f"a{REAL}")))
        server.serve("http_server", "--port", "8080")
        home = world.pod("caller", meshed=False)
        identity = world.authority.identity(workload_id(TRUST_DOMAIN, "default", f"a{REAL * 7 + 1}"))
        cert, listed = world.directory / "caller.pem", world.directory / "callers.json"
        cert.touch(mode=0o600)
        cert.write_text(identity.svid + identity.key)
        listed.write_text(json.dumps({"x": {"address": home.address, "cert": str(cert)}}))
        argv = home.command(sys.executable, str(PEERS / "callers.py"), server.address, str(listed))
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
            world.processes.append(caller)
            found = Scale(catalog, compiler, overlay, server, 0, caller)
            found.push()
            yield found
            caller.kill()


def test_a_change_of_a_policy_touches_the_sidecars_it_is_about_and_no_other(scale: Scale) -> None:
    for number in (5, 299, 640, 999):
        gone = scale.change(Delete(target(number).key))
        assert (gone.pods, gone.modes) == ({pod_of(number % SERVICES)}, set())
        assert scale.change(target(number)) == gone
    for number in (0, 11, 199):
        assert scale.change(limit(number, "2000r/s")) == ChangedSidecars(pods={pod_of(number)})
        assert scale.change(limit(number)) == ChangedSidecars(pods={pod_of(number)})
    for number in (3, 110):
        about = {pod_of(at % SERVICES) for at in range(TARGETS) if at % GROUPS == number}
        about |= {pod_of(number)} if number % 2 else set()
        assert scale.change(group(number, "^/other/")) == ChangedSidecars(pods=about)
        assert scale.change(group(number, f"^/v{number}/")) == ChangedSidecars(pods=about)
    assert scale.change(target(5)) == ChangedSidecars(), "nothing changed"
    scale.push()


def test_a_change_of_a_policy_is_in_force_within_300_ms(scale: Scale) -> None:
    """From the event to the answer of a request that it decides."""
    scale.change(Delete(target(607).key))
    scale.push()
    assert scale.ask() == "404", "t7 lets it through, to an application that has no such page"
    times = []
    for _ in range(20):
        for change, expected in ((Delete(target(REAL).key), "403"), (target(REAL), "404")):
            began = time.perf_counter()
            assert scale.change(change).pods == {pod_of(REAL)}
            update = scale.compiler.update_for(pod_of(REAL), scale.version)
            assert update is not None
            assert list(update.set_) == ["inbound/8080"]
            scale.push()
            assert scale.ask() == expected
            times.append(time.perf_counter() - began)
    print(f"median {statistics.median(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms of {len(times)}")
    assert statistics.median(times) < WITHIN_SECONDS
