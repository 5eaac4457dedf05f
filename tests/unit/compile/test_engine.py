"""The compiler's work is in proportion to the change, and its updates contain only what changed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Delete, Upsert
from nginx_mesh.compile.engine import ChangedSidecars, Compiler
from nginx_mesh.protocol.state import Update

from .objects import SidecarState, breaker, group, limit, pod, pod_key, port, service, slice_, split

SERVICES, PODS_EACH = 300, 10
CALLER = pod_key("web-0-0")


def replica(index: int, number: int, *, ready: bool = True) -> Object:
    ip = f"10.{index // 250}.{index % 250}.{number + 1}"
    return pod(f"web-{index}-{number}", ips=[ip], labels={"app": f"web-{index}"}, account=f"web-{index}", ready=ready)


class Mesh:
    def __init__(self, *objects: Object, settings: MeshSettings | None = None) -> None:
        self.catalog = Catalog()
        for obj in objects:
            self.catalog.apply(Upsert(obj))
        self.compiler = Compiler(self.catalog, settings or MeshSettings(), first_version=1000)

    def apply(self, obj: Object) -> ChangedSidecars:
        return self.compiler.apply(self.catalog.apply(Upsert(obj)))

    def delete(self, key: ObjectKey) -> ChangedSidecars:
        return self.compiler.apply(self.catalog.apply(Delete(key)))

    def update(self, pod: ObjectKey, base: int | None) -> Update:
        update = self.compiler.update_for(pod, base)
        assert update is not None
        return update


@pytest.fixture(scope="module")
def large() -> Mesh:
    services = (
        service(f"web-{index}", port(80, target=8080), vips=[f"10.96.{index // 250}.{index % 250}"])
        for index in range(SERVICES)
    )
    return Mesh(*services, *(replica(index, number) for index in range(SERVICES) for number in range(PODS_EACH)))


def work(mesh: Mesh, obj: Object) -> tuple[int, Update]:
    """The number of entries and endpoints compiled for a change, and the update for an unrelated sidecar."""
    before, version = mesh.compiler.compiled, mesh.compiler.version
    mesh.apply(obj)
    return mesh.compiler.compiled - before, mesh.update(CALLER, version)


def test_one_endpoint_of_three_thousand_costs_one_entry(large: Mesh) -> None:
    compiled, update = work(large, replica(7, 3, ready=False))
    assert compiled == 1
    assert (update.set_, update.delete) == ({}, [])
    assert update.endpoints == {"default/web-7:80": {"10.0.7.4:8080": None}}
    compiled, update = work(large, replica(7, 3))
    assert compiled == 1
    assert list(update.endpoints["default/web-7:80"]) == ["10.0.7.4:8080"]
    assert len(msgspec.json.encode(update)) < 400


def test_a_new_or_deleted_pod_costs_its_own_entries(large: Mesh) -> None:
    compiled, update = work(large, replica(7, PODS_EACH))
    assert compiled <= 5
    assert set(update.set_) == {"destination/10.0.7.11:8080", "cluster/10.0.7.11:8080"}
    assert list(update.endpoints) == ["default/web-7:80"]
    version = large.compiler.version
    large.delete(pod_key(f"web-7-{PODS_EACH}"))
    update = large.update(CALLER, version)
    assert set(update.delete) == {"destination/10.0.7.11:8080", "cluster/10.0.7.11:8080"}


def test_a_service_costs_its_own_endpoints(large: Mesh) -> None:
    changed = service("web-9", port(80, target=8080), port(81, target=8080), vips=["10.96.0.9"])
    compiled, update = work(large, changed)
    # The new port's cluster and destination, and the ports of the pods behind it, which two Services' ports now share.
    assert compiled <= 1 + PODS_EACH + 2 + 5 * PODS_EACH
    assert {"destination/10.96.0.9:81", "cluster/default/web-9:81"} <= set(update.set_)
    assert not any("web-8" in key for key in update.set_)


def test_one_endpoint_of_a_slice_costs_its_own_entries(large: Mesh) -> None:
    peer = {"config.nsm.nginx.com/peer-spiffe-id": "spiffe://other.example/x"}
    large.apply(service("far", port(80), vips=["10.97.0.1"], selector={}, annotations=peer))
    addresses = {f"10.50.0.{number}": True for number in range(1, 101)}
    large.apply(slice_("far-1", "far", addresses, {"": 80}))
    compiled, update = work(large, slice_("far-1", "far", {**addresses, "10.50.0.7": False}, {"": 80}))
    assert compiled == 3
    assert update.endpoints == {"default/far:80": {"10.50.0.7:80": None}}
    assert set(update.delete) == {"destination/10.50.0.7:80", "cluster/10.50.0.7:80"}


def test_a_change_that_the_mesh_does_not_act_on_costs_nothing(large: Mesh) -> None:
    raw = msgspec.to_builtins(replica(7, 3))
    raw["metadata"]["resourceVersion"] = "12345"
    raw["status"]["startTime"] = "2024-01-01T00:00:00Z"
    version = large.compiler.version
    before = large.compiler.compiled
    touched = large.apply(msgspec.convert(raw, type(replica(7, 3))))
    assert (touched, large.compiler.compiled) == (ChangedSidecars(), before)
    assert large.update(CALLER, version).set_ == {}


def test_the_mesh_is_compiled_and_encoded_once_for_all_sidecars_of_a_mode(large: Mesh) -> None:
    before = large.compiler.compiled
    first, second = (large.update(pod_key(f"web-{index}-0"), None) for index in (1, 2))
    assert large.compiler.compiled == before
    shared = "cluster/default/web-3:80"
    assert isinstance(first.set_[shared], msgspec.Raw)
    assert first.set_[shared] is second.set_[shared]


def test_a_weight_costs_its_own_entry() -> None:
    names = ("web", "one", "two", "other")
    mesh = Mesh(
        *(
            service(name, port(80, target=8080), vips=[f"10.96.0.{n}"] if n else [], selector={"app": "web"})
            for n, name in enumerate(names)
        ),
        *(pod(f"web-{n}", labels={"app": "web"}, ips=[f"10.0.0.{n}"]) for n in range(1, 6)),
        split("web", "web", {"one": 9, "two": 1}),
        split("other", "other", {"one": 9, "web": 1}),
        breaker("web", "web", fallback="default/two"),
    )
    compiled, version = mesh.compiler.compiled, mesh.compiler.version
    mesh.apply(split("web", "web", {"one": 8, "two": 2}))
    assert mesh.compiler.compiled - compiled == 1
    update = mesh.update(pod_key("web-1"), version)
    assert (list(update.set_), update.delete, update.endpoints) == (["split/default/web:80"], [], {})


def test_a_split_of_a_headless_service_changes_the_destinations_of_its_pods_only() -> None:
    mesh = Mesh(
        service("web", port(80, target=8080), vips=[]),
        service("two", port(80, target=8080)),
        pod("web-0", labels={"app": "web"}),
        pod("other", ips=["10.0.0.2"]),
    )
    version = mesh.compiler.version
    mesh.apply(split("web", "web", {"two": 1}))
    update = mesh.update(pod_key("other"), version)
    assert set(update.set_) == {"split/default/web:80", "destination/10.0.0.1:8080"}
    version = mesh.compiler.version
    mesh.apply(split("web", "web", {"two": 1, "web": 1}))
    update = mesh.update(pod_key("other"), version)
    assert set(update.set_) == {"split/default/web:80", "cluster/default/web:80"}


def test_a_limits_destination_is_compiled_again_only_when_its_callers_change() -> None:
    def client(number: int, **facts: Any) -> Pod:
        facts = {"ips": [f"10.0.1.{number}"], "labels": {"app": "c"}, "account": "c", **facts}
        return pod(f"c-{number}", **facts)

    mesh = Mesh(
        service("web", port(80, target=8080)),
        pod("web-0", labels={"app": "web"}),
        service("c", port(80), vips=["10.96.0.2"]),
        client(0),
        client(1, ips=[]),
        limit("l", ("Service", "web"), "1r/s", sources=[("Service", "c")]),
    )
    for told, changed in (
        (False, client(0, ready=False)),
        (False, client(0, annotations={"config.nsm.nginx.com/mtls-mode": "off"})),
        (True, client(1)),
        (True, client(1, account="other")),
        (True, client(2)),
        (False, client(3, labels={"app": "d"})),
    ):
        assert (pod_key("web-0") in mesh.catalog.apply(Upsert(changed)).pods) == told, changed


def test_a_new_balancing_method_is_sent_with_its_cluster() -> None:
    mesh = Mesh(service("web", port(80, target=8080)), pod("web-0", labels={"app": "web"}))
    version = mesh.compiler.version
    annotated = service("web", port(80, target=8080), annotations={"config.nsm.nginx.com/lb-method": "random"})
    assert mesh.apply(annotated).modes == {"permissive"}
    assert list(mesh.update(pod_key("web-0"), version).set_) == ["cluster/default/web:80"]


def test_settings_of_the_mesh_apply_to_every_sidecar() -> None:
    mesh = Mesh(pod("a"), pod("b", ips=["10.0.0.2"], meshed=False))
    version = mesh.compiler.version
    assert mesh.compiler.configure(MeshSettings(log_format="json")) == ChangedSidecars(pods={pod_key("a")})
    assert list(mesh.update(pod_key("a"), version).set_) == ["settings"]
    assert mesh.compiler.configure(MeshSettings(log_format="json")) == ChangedSidecars()


def test_a_change_of_mode_makes_a_full_state() -> None:
    mesh = Mesh(pod("a"), pod("b", ips=["10.0.0.2"], meshed=False))
    sidecar = SidecarState()
    sidecar.take(mesh.update(pod_key("a"), None))
    assert list(sidecar.entries["cluster/10.0.0.2:8080"]["endpoints"]) == ["10.0.0.2:8080"]
    assert mesh.compiler.configure(MeshSettings(mtls_mode="strict")).pods == {pod_key("a")}
    update = mesh.update(pod_key("a"), sidecar.version)
    assert update.base is None
    sidecar.take(update)
    assert sidecar.entries["settings"]["mtls_mode"] == "strict"
    assert sidecar.entries["cluster/10.0.0.2:8080"]["endpoints"] == {}


@pytest.mark.parametrize("base", [None, 0, 999, 10**15])
def test_an_unknown_base_version_makes_a_full_state(base: int | None) -> None:
    assert Mesh(pod("a")).update(pod_key("a"), base).base is None


def test_versions_only_grow() -> None:
    mesh = Mesh(pod("a"))
    seen = [1000, mesh.compiler.version]
    for ready in (False, True):
        mesh.apply(pod("a", ready=ready))
        seen.append(mesh.compiler.version)
    mesh.compiler.configure(MeshSettings(mtls_mode="strict"))
    seen.append(mesh.compiler.version)
    assert seen == sorted(set(seen))


def test_a_deleted_pod_has_no_state_and_a_new_pod_of_its_name_gets_a_full_one() -> None:
    mesh = Mesh(pod("a"))
    version = mesh.compiler.version
    mesh.delete(pod_key("a"))
    assert mesh.compiler.update_for(pod_key("a"), version) is None
    assert mesh.compiler.sidecars() == set()
    mesh.apply(pod("a"))
    assert mesh.update(pod_key("a"), version).base is None


def test_later_changes_leave_earlier_updates_as_they_are() -> None:
    mesh = Mesh(service("web", port(80, target=8080)), pod("web-0", labels={"app": "web"}))
    update = mesh.update(pod_key("web-0"), None)
    before = msgspec.json.encode(update)
    mesh.apply(pod("web-0", labels={"app": "web"}, ready=False))
    assert msgspec.json.encode(update) == before


def test_warnings_come_and_go_with_their_cause() -> None:
    mesh = Mesh(service("web", port(80), annotations={"config.nsm.nginx.com/lb-method": "best"}))
    (key,) = mesh.compiler.warnings
    assert key == ObjectKey("Service", "default", "web")
    mesh.apply(service("web", port(80)))
    assert mesh.compiler.warnings == {}


def test_a_split_is_compiled_again_when_objects_that_it_names_are_created() -> None:
    mesh = Mesh(service("web", port(80)), split("web", "web", {"two": 1}, "some"), pod("a"))
    version = mesh.compiler.version
    mesh.apply(service("two", port(80), vips=["10.96.0.2"]))
    assert mesh.update(pod_key("a"), version).set_.keys() == {
        "cluster/default/two:80",
        "destination/10.96.0.2:80",
    }
    mesh.apply(group("some", {"name": "x", "pathRegex": "/x"}))
    assert "split/default/web:80" in mesh.update(pod_key("a"), version).set_
    assert mesh.compiler.warnings == {}
    mesh.delete(ObjectKey("Service", "default", "two"))
    assert "split/default/web:80" not in mesh.update(pod_key("a"), None).set_
    assert [warning.field for warning in mesh.compiler.warnings[ObjectKey("TrafficSplit", "default", "web")]] == [
        "spec.backends[0].service"
    ]


def test_the_warning_about_a_conflict_goes_when_the_other_policy_does() -> None:
    old, young = (
        limit(name, ("Service", "web"), "1r/s", created=f"2024-01-0{day}") for day, name in ((1, "b"), (2, "a"))
    )
    mesh = Mesh(young)
    mesh.apply(old)
    assert list(mesh.compiler.warnings) == [young.key]
    mesh.delete(old.key)
    assert mesh.compiler.warnings == {}
