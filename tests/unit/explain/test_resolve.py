"""The names of a caller and of a Service resolve to one pod and one address, or to an error that says why not."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from nginx_mesh.api import kinds
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Address, Upsert
from nginx_mesh.explain.resolve import (
    ResolvedCaller,
    ResolvedService,
    ResolveError,
    address_of,
    endpoints_behind,
    name_of,
    pod_behind,
    resolve_caller,
    resolve_service,
    source_of,
)
from tests.unit.compile.objects import pod, port, service


def owned(name: str, kind: str, owner: str, *, ready: bool = True, ips: Iterable[str] = ("10.0.0.9",)) -> Pod:
    labels = {f"nsm.nginx.com/{kind}": owner, "app": owner}
    return pod(name, labels=labels, ready=ready, ips=tuple(ips))


class Mesh:
    """A catalog, and the objects in it."""

    def __init__(self, *objects: Object) -> None:
        self.catalog = Catalog()
        self.objects: dict[ObjectKey, Object] = {}
        for obj in objects:
            self.catalog.apply(Upsert(obj))
            self.objects[obj.key] = obj

    def caller(self, name: str) -> ResolvedCaller:
        return resolve_caller(self.catalog, name, "default", kind_of)

    def service(self, name: str) -> ResolvedService:
        return resolve_service(self.catalog, self.objects.get, name, "default", kind_of)


def kind_of(title: str) -> str | None:
    kind = kinds.lookup(title)
    return None if kind is None else kind.KIND


MESH = Mesh(
    owned("web-1", "deployment", "web", ready=False, ips=["10.0.0.1"]),
    owned("web-2", "deployment", "web", ips=["10.0.0.2", "fd00::2"]),
    owned("db-0", "statefulset", "db"),
    owned("gone-1", "deployment", "gone", ips=[]),
    owned("both-1", "deployment", "both"),
    pod("both", ips=["10.0.0.7"]),
    service("web", port(80, target=8080), vips=["10.96.0.1"], selector={"app": "web"}),
    service("db", port(5432, "tcp-sql"), port(9090, "http-metrics"), vips=["10.96.0.2"], selector={"app": "db"}),
    service("heads", port(80, target=8080), vips=[], selector={"app": "web"}),
    service("nobody", port(80), vips=[], selector={"app": "nobody"}),
)


@pytest.mark.parametrize("name", ["web", "default/web", "default/deploy/web", "default/Deployment/web"])
def test_a_workload_resolves_to_one_of_its_ready_pods(name: str) -> None:
    caller = MESH.caller(name)
    assert (name_of(caller.pod), caller.workload, caller.pods) == ("default/web-2", "Deployment default/web", 2)


@pytest.mark.parametrize(
    ("name", "found"), [("db-0", "Pod"), ("default/po/db-0", "Pod"), ("default/sts/db", "StatefulSet")]
)
def test_pods_and_workloads_of_every_kind_resolve(name: str, found: str) -> None:
    assert MESH.caller(name).workload.startswith(found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("default/nothing", "no pod of workload default/nothing is running"),
        ("elsewhere/web", "no pod of workload elsewhere/web is running"),
        ("default/sts/web", "no pod of StatefulSet default/web is running"),
        ("gone", "no pod of workload default/gone is running"),
        ("default/svc/web", 'there is no workload of kind "svc"'),
        ("default/nonsense/web", 'there is no workload of kind "nonsense"'),
        ("both", "is several workloads: say default/deployment/both or default/pod/both"),
        ("", '"" is not NAMESPACE/NAME'),
        ("a//b", "is not NAMESPACE/NAME"),
        ("a/b/c/d", "is not NAMESPACE/NAME"),
    ],
)
def test_a_caller_that_cannot_be_resolved_gets_a_reason(name: str, reason: str) -> None:
    with pytest.raises(ResolveError) as error:
        MESH.caller(name)
    assert reason in str(error.value)


@pytest.mark.parametrize("name", ["web", "default/web", "default/svc/web:80", "web:80"])
def test_a_service_resolves_to_its_cluster_address(name: str) -> None:
    service = MESH.service(name)
    assert (service.address, service.protocol, service.host) == (Address("10.96.0.1", 80), "http", "web.default")


@pytest.mark.parametrize("name", ["db:9090", "db:http-metrics"])
def test_a_port_can_be_given_by_number_and_by_name(name: str) -> None:
    service = MESH.service(name)
    assert (service.address, service.protocol, service.host) == (Address("10.96.0.2", 9090), "http", "db.default:9090")


def test_a_headless_service_resolves_to_its_first_ready_pod() -> None:
    assert MESH.service("heads").address == Address("10.0.0.2", 8080)
    assert MESH.service("nobody").address is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "there is no Service default/nothing"),
        ("db", "has several ports, 5432 (tcp-sql), 9090 (http-metrics): add one, as in db:5432"),
        ("web:81", "has no TCP port 81: it has 80"),
        ("web:0x50", "has no TCP port 0x50"),
        ("default/pod/web", '"pod" is not a Service'),
        (":80", "is not NAMESPACE/NAME"),
    ],
)
def test_a_service_that_cannot_be_resolved_gets_a_reason(name: str, reason: str) -> None:
    with pytest.raises(ResolveError) as error:
        MESH.service(name)
    assert reason in str(error.value)


def test_an_external_name_does_not_resolve() -> None:
    inside = service("outside", port(80))
    external = msgspec.structs.replace(inside, spec=msgspec.structs.replace(inside.spec, type="ExternalName"))
    with pytest.raises(ResolveError, match="outside of the cluster"):
        Mesh(external).service("outside")


def test_without_a_sidecar_the_endpoints_are_the_ready_ones() -> None:
    assert endpoints_behind(MESH.catalog, MESH.service("web")) == ["10.0.0.2:8080"]
    assert endpoints_behind(MESH.catalog, MESH.service("heads")) == ["10.0.0.2:8080"]
    assert endpoints_behind(MESH.catalog, MESH.service("nobody")) == []


def test_a_caller_calls_from_its_address_of_the_same_family() -> None:
    caller = MESH.caller("web").pod
    assert source_of(caller, address_of("10.0.0.9:80")) == "10.0.0.2"
    assert source_of(caller, address_of("[fd00::9]:80")) == "fd00::2"
    assert source_of(MESH.caller("db").pod, address_of("[fd00::9]:80")) == "10.0.0.9"


def test_the_pod_behind_an_endpoint_is_found_by_its_address() -> None:
    found = pod_behind(MESH.catalog, "10.0.0.2:8080")
    assert found is not None
    assert name_of(found) == "default/web-2"
    assert pod_behind(MESH.catalog, "192.0.2.1:8080") is None
