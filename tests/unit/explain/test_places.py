"""Names of callers and of what they call, as people write them, mean one pod and one address, or say what is wrong."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from nginx_mesh.api import kinds
from nginx_mesh.api.core import Pod
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Address, Upsert
from nginx_mesh.explain.places import (
    Origin,
    PlaceError,
    Target,
    address_of,
    endpoints_behind,
    find_origin,
    find_target,
    name_of,
    pod_behind,
    source_of,
)
from tests.unit.compile.objects import pod, port, service


def owned(name: str, kind: str, owner: str, *, ready: bool = True, ips: Iterable[str] = ("10.0.0.9",)) -> Pod:
    labels = {f"nsm.nginx.com/{kind}": owner, "app": owner}
    return pod(name, labels=labels, ready=ready, ips=tuple(ips))


class Places:
    """A catalog, and the objects in it."""

    def __init__(self, *objects: Object) -> None:
        self.catalog = Catalog()
        self.objects: dict[ObjectKey, Object] = {}
        for obj in objects:
            self.catalog.apply(Upsert(obj))
            self.objects[obj.key] = obj

    def origin(self, name: str) -> Origin:
        return find_origin(self.catalog, name, "default", kind_of)

    def target(self, name: str) -> Target:
        return find_target(self.catalog, self.objects.get, name, "default", kind_of)


def kind_of(title: str) -> str | None:
    kind = kinds.lookup(title)
    return None if kind is None else kind.KIND


WORLD = Places(
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
def test_a_workload_is_one_of_its_pods_that_is_ready(name: str) -> None:
    origin = WORLD.origin(name)
    assert (name_of(origin.pod), origin.workload, origin.pods) == ("default/web-2", "Deployment default/web", 2)


@pytest.mark.parametrize(
    ("name", "found"), [("db-0", "Pod"), ("default/po/db-0", "Pod"), ("default/sts/db", "StatefulSet")]
)
def test_pods_and_other_workloads_call_too(name: str, found: str) -> None:
    assert WORLD.origin(name).workload.startswith(found)


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
def test_a_caller_that_is_none_is_told_why(name: str, reason: str) -> None:
    with pytest.raises(PlaceError) as error:
        WORLD.origin(name)
    assert reason in str(error.value)


@pytest.mark.parametrize("name", ["web", "default/web", "default/svc/web:80", "web:80"])
def test_a_service_is_dialled_at_its_address(name: str) -> None:
    target = WORLD.target(name)
    assert (target.address, target.protocol, target.host) == (Address("10.96.0.1", 80), "http", "web.default")


@pytest.mark.parametrize("name", ["db:9090", "db:http-metrics"])
def test_ports_have_numbers_and_names(name: str) -> None:
    target = WORLD.target(name)
    assert (target.address, target.protocol, target.host) == (Address("10.96.0.2", 9090), "http", "db.default:9090")


def test_of_a_headless_service_the_first_pod_that_is_ready_is_dialled() -> None:
    assert WORLD.target("heads").address == Address("10.0.0.2", 8080)
    assert WORLD.target("nobody").address is None


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
def test_what_cannot_be_dialled_is_told_why(name: str, reason: str) -> None:
    with pytest.raises(PlaceError) as error:
        WORLD.target(name)
    assert reason in str(error.value)


def test_an_external_name_has_no_address() -> None:
    inside = service("outside", port(80))
    external = msgspec.structs.replace(inside, spec=msgspec.structs.replace(inside.spec, type="ExternalName"))
    with pytest.raises(PlaceError, match="outside of the cluster"):
        Places(external).target("outside")


def test_the_kernel_chooses_among_what_is_ready() -> None:
    assert endpoints_behind(WORLD.catalog, WORLD.target("web")) == ["10.0.0.2:8080"]
    assert endpoints_behind(WORLD.catalog, WORLD.target("heads")) == ["10.0.0.2:8080"]
    assert endpoints_behind(WORLD.catalog, WORLD.target("nobody")) == []


def test_a_caller_uses_the_address_of_the_same_family() -> None:
    caller = WORLD.origin("web").pod
    assert source_of(caller, address_of("10.0.0.9:80")) == "10.0.0.2"
    assert source_of(caller, address_of("[fd00::9]:80")) == "fd00::2"
    assert source_of(WORLD.origin("db").pod, address_of("[fd00::9]:80")) == "10.0.0.9"


def test_an_endpoint_is_the_pod_at_its_address() -> None:
    found = pod_behind(WORLD.catalog, "10.0.0.2:8080")
    assert found is not None
    assert name_of(found) == "default/web-2"
    assert pod_behind(WORLD.catalog, "192.0.2.1:8080") is None
