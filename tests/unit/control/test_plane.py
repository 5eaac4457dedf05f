"""The control plane's core: what nodes are told and asked, what is waited for, how far policies are in force."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import msgspec
import pytest

from nginx_mesh.api.annotations import INJECTED, SIDECAR_CONTAINER, STATUS
from nginx_mesh.api.kinds import decode
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.catalog.changes import Delete, Upsert
from nginx_mesh.compile.inbound import no_probes
from nginx_mesh.control.interfaces import EventType
from nginx_mesh.control.plane import Plane
from nginx_mesh.protocol.state import Settings
from tests.eventually import eventually

WEB, CALLER = (ObjectKey("Pod", "shop", name) for name in ("web", "caller"))


def pod(key: ObjectKey, address: str) -> Object:
    metadata = {"name": key.name, "namespace": key.namespace, "uid": key.name, "labels": {"app": key.name}}
    return decode(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "annotations": {STATUS: INJECTED}},
            "spec": {
                "serviceAccountName": key.name,
                "containers": [
                    {"name": "app", "ports": [{"containerPort": 80, "name": "http"}]},
                    {"name": SIDECAR_CONTAINER},
                ],
            },
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
    )


def service(name: str, annotations: dict[str, str] | None = None) -> Object:
    return decode(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations or {}},
            "spec": {"clusterIP": "10.96.0.1", "selector": {"app": name}, "ports": [{"port": 80}]},
        }
    )


def target(*sources: str, name: str = "web") -> Object:
    def account(account: str) -> dict[str, str]:
        return {"kind": "ServiceAccount", "name": account, "namespace": "shop"}

    return decode(
        {
            "apiVersion": "access.smi-spec.io/v1alpha2",
            "kind": "TrafficTarget",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"destination": account("web"), "sources": [account(source) for source in sources]},
        }
    )


class Home:
    """A plane with one node, which keeps what it is told."""

    def __init__(self, *objects: Object, settings: MeshSettings | None = None) -> None:
        self.events: list[tuple[ObjectKey, str, str]] = []
        self.registered: list[tuple[str, str, tuple[str, ...]]] = []
        self.moved: list[AbstractSet[ObjectKey]] = []
        self.told: list[AbstractSet[ObjectKey]] = []
        self.plane = Plane(
            objects or (pod(WEB, "10.0.0.1"), pod(CALLER, "10.0.0.2")),
            settings or MeshSettings(),
            recorder=self,
            first_version=1000,
            probes=no_probes,
            register=self._register,
            policies_moved=self.moved.append,
        )
        self.plane.subscribe(self.told.append)

    def record(self, key: ObjectKey, kind: EventType, reason: str, message: str) -> None:
        self.events.append((key, reason, message))

    def warn_once(self, key: ObjectKey, reason: str, message: str, *, or_said_as: str) -> None:
        self.record(key, "Warning", reason, message)

    def _register(self, uid: str, spiffe_id: SpiffeId, dns_names: Sequence[str]) -> None:
        self.registered.append((uid, str(spiffe_id), tuple(dns_names)))

    def take(self, *pods: ObjectKey) -> None:
        """What a node does whose sidecars take their newest state."""
        for key in pods:
            update = self.plane.update_for(key, None)
            assert update is not None
            self.plane.acknowledged(key, update.version)

    def mode(self, key: ObjectKey) -> str:
        entry = self.plane.own_state(key)["settings"]
        assert isinstance(entry, Settings)
        return entry.mtls_mode


async def waits(home: Home) -> bool:
    """Whether the plane waits for some sidecar now."""
    waiting = asyncio.create_task(home.plane.synced(30))
    await asyncio.sleep(0.02)
    done = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not done


def test_a_node_is_told_of_the_pods_whose_state_changed_and_of_no_others() -> None:
    home = Home()
    home.plane.apply(Upsert(target("caller")))
    assert home.told == [{WEB}]
    home.plane.apply(Upsert(service("web")))
    assert home.told[-1] == {WEB, CALLER}


def test_no_update_holds_an_identity() -> None:
    home = Home()
    update = home.plane.update_for(WEB, None)
    assert update is not None
    assert "settings" in update.set_
    assert "identity" not in update.set_


async def test_a_sidecar_that_served_before_is_waited_for_until_it_acknowledged() -> None:
    home = Home()
    home.plane.acknowledged(WEB, None)
    waiting = asyncio.create_task(home.plane.synced(30))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    home.take(WEB)
    await asyncio.wait_for(waiting, 5)


async def test_a_sidecar_that_never_had_a_state_is_not_waited_for() -> None:
    assert not await waits(Home())


async def test_a_sidecar_is_not_waited_for_when_nothing_newer_concerns_it() -> None:
    home = Home()
    home.take(WEB, CALLER)
    home.plane.apply(Upsert(target("caller")))
    assert await waits(home)
    home.take(WEB)
    assert not await waits(home)


@pytest.mark.parametrize("end", ["refused", "dropped"])
async def test_a_sidecar_that_refuses_or_goes_holds_up_nobody(end: str) -> None:
    home = Home()
    home.take(WEB)
    home.plane.apply(Upsert(target("caller")))
    waiting = asyncio.create_task(home.plane.synced(30))
    await asyncio.sleep(0)
    if end == "refused":
        home.plane.refused(WEB, "settings: bad")
    else:
        home.plane.dropped(WEB)
    await asyncio.wait_for(waiting, 5)
    assert (WEB, "StateRefused", "settings: bad") in home.events or end == "dropped"


async def test_waiting_ends_after_its_time() -> None:
    home = Home()
    home.plane.acknowledged(WEB, None)
    await asyncio.wait_for(home.plane.synced(0.05), 5)


async def test_from_off_to_strict_the_mesh_is_permissive_until_all_sidecars_are() -> None:
    off = MeshSettings(mtls_mode="off")
    home = Home(settings=off)
    home.take(WEB, CALLER)
    home.plane.configure(msgspec.structs.replace(off, mtls_mode="strict"))
    await asyncio.sleep(0.02)
    assert home.mode(WEB) == "permissive"
    home.take(WEB)
    await asyncio.sleep(0.02)
    assert home.mode(WEB) == "permissive"
    home.take(CALLER)
    await eventually(lambda: home.mode(WEB) == "strict", lambda: f"mode strict; it is {home.mode(WEB)}")
    assert home.plane.settings.mtls_mode == "strict"
    await home.plane.close()


async def test_settings_that_change_again_meanwhile_are_the_ones_that_hold() -> None:
    off = MeshSettings(mtls_mode="off")
    home = Home(settings=off)
    home.take(WEB, CALLER)
    home.plane.configure(msgspec.structs.replace(off, mtls_mode="strict"))
    await asyncio.sleep(0)
    home.plane.configure(off)
    home.take(WEB, CALLER)
    await eventually(lambda: home.mode(WEB) == "off", lambda: f"mode off; it is {home.mode(WEB)}")
    home.take(WEB, CALLER)
    await asyncio.sleep(0.02)
    assert home.mode(WEB) == "off"
    assert home.plane.settings is off
    await home.plane.close()


def test_a_policy_is_in_force_when_the_sidecars_that_it_concerns_have_it() -> None:
    home = Home()
    home.take(WEB, CALLER)
    home.plane.apply(Upsert(policy := target("caller")))
    standing = home.plane.standing(policy.key)
    assert standing is not None
    assert (standing.sidecars, standing.updated) == (1, 0)
    home.moved.clear()
    home.take(WEB)
    assert policy.key in frozenset().union(*home.moved)
    standing = home.plane.standing(policy.key)
    assert standing is not None
    assert (standing.sidecars, standing.updated) == (1, 1)
    home.plane.acknowledged(WEB, None)  # its node found that it lost its state
    standing = home.plane.standing(policy.key)
    assert standing is not None
    assert standing.updated == 0
    home.plane.apply(Delete(policy.key))
    assert home.plane.standing(policy.key) is None


def test_what_is_wrong_with_an_object_is_said_once_until_it_is_something_else() -> None:
    home = Home()
    for _ in range(2):
        home.plane.apply(Upsert(service("web", {"config.nsm.nginx.com/lb-method": "best"})))
    assert len(home.events) == 1
    key, reason, message = home.events[0]
    assert (key.name, reason) == ("web", "UpsertServiceFailed")
    assert "best" in message


def test_pods_are_registered_with_the_names_of_the_services_that_select_them() -> None:
    home = Home()
    home.plane.registrations.add(WEB, "uid-1", "web")
    home.plane.apply(Upsert(service("web")))
    spiffe_id = "spiffe://example.org/ns/shop/sa/web"
    names = ("web.shop", "web.shop.svc", "web.shop.svc.cluster.local")
    assert home.registered == [("uid-1", spiffe_id, ()), ("uid-1", spiffe_id, names)]
    assert home.plane.registrations.spiffe_id(WEB) == spiffe_id
    home.plane.registrations.remove(WEB)
    home.plane.apply(Delete(service("web").key))
    assert len(home.registered) == 2
    assert home.plane.registrations.spiffe_id(WEB) is None
