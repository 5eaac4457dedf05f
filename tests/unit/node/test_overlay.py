"""The SVID laid over a sidecar's state, and what the versions of the result stand for."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.node.overlay import IdentityOverlay
from nginx_mesh.protocol.state import Update
from tests.unit.node.sidecar import OTHER, POD, Author, identity


def entries(update: Update | None) -> dict[str, Any]:
    assert update is not None
    return dict(update.set_)


def test_a_full_state_has_the_identity_of_its_own_pod_only() -> None:
    overlay = IdentityOverlay(Author(), 5000)
    overlay.set_identity(POD, identity())
    assert entries(overlay.update_for(POD, None))["identity"] == identity()
    assert "identity" not in entries(overlay.update_for(OTHER, None))


def test_a_renewed_identity_alone_is_an_update_of_one_entry() -> None:
    overlay = IdentityOverlay(Author(), 5000)
    overlay.set_identity(POD, identity())
    first = overlay.update_for(POD, None)
    assert first is not None
    overlay.set_identity(POD, identity("another key"))
    update = overlay.update_for(POD, first.version)
    assert update is not None
    assert (update.base, entries(update)) == (first.version, {"identity": identity("another key")})
    assert overlay.plane_version(POD, update.version) == overlay.plane_version(POD, first.version) == 1000


def test_an_identity_that_was_taken_away_is_deleted() -> None:
    overlay = IdentityOverlay(Author(), 5000)
    overlay.set_identity(POD, identity())
    first = overlay.update_for(POD, None)
    overlay.set_identity(POD, None)
    assert first is not None
    update = overlay.update_for(POD, first.version)
    assert update is not None
    assert update.delete == ["identity"]


def test_an_update_of_the_control_plane_does_not_repeat_the_identity() -> None:
    author = Author()
    overlay = IdentityOverlay(author, 5000)
    overlay.set_identity(POD, identity())
    first = overlay.update_for(POD, None)
    author.grow()
    assert first is not None
    update = overlay.update_for(POD, first.version)
    assert update is not None
    assert entries(update) == {}
    assert list(update.endpoints) == ["a/b:80"]
    assert overlay.plane_version(POD, update.version) == author.version


def test_nothing_new_is_an_empty_update_that_stands_for_the_newest_version_all_the_same() -> None:
    version = 1000

    def source(pod: object, base: int | None) -> Update:
        return Update(base=base, version=version)

    overlay = IdentityOverlay(source, 5000)
    first = overlay.update_for(POD, None)
    assert first is not None
    version = 1007
    update = overlay.update_for(POD, first.version)
    assert update == Update(base=first.version, version=first.version)
    assert overlay.plane_version(POD, first.version) == 1007


def test_a_version_that_this_node_did_not_give_gets_everything() -> None:
    overlay = IdentityOverlay(Author(), 5000)
    overlay.set_identity(POD, identity())
    update = overlay.update_for(POD, 4711)
    assert update is not None
    assert update.base is None
    assert {"cluster/a/b:80", "identity"} <= entries(update).keys()
    assert overlay.plane_version(POD, 4711) is None


def test_a_pod_without_a_sidecar_has_no_update() -> None:
    assert IdentityOverlay(lambda pod, base: None, 5000).update_for(POD, None) is None


def test_a_pod_of_the_same_name_does_not_get_the_identity_of_one_that_is_gone() -> None:
    overlay = IdentityOverlay(Author(), 5000)
    overlay.set_identity(POD, identity())
    first = overlay.update_for(POD, None)
    overlay.forget(POD)
    assert first is not None
    assert overlay.plane_version(POD, first.version) is None
    assert "identity" not in entries(overlay.update_for(POD, None))


@given(st.lists(st.sampled_from(("grow", "renew", "take away", "lost answer", "fetch", "forgot")), max_size=30))
def test_a_sidecar_ends_with_what_there_is_whatever_was_lost_on_the_way(steps: list[str]) -> None:
    author = Author()
    overlay = IdentityOverlay(author, 5000)
    state: dict[str, Any] = {}
    has: int | None = None
    key = 0
    wanted = None

    def fetch(*, heard: bool) -> None:
        """The sidecar takes an update; the node hears of it or not."""
        nonlocal has
        update = overlay.update_for(POD, has)
        assert update is not None
        assert update.base in (None, has)
        if update.base is None:
            state.clear()
        state.update(msgspec.json.decode(msgspec.json.encode(update.set_)))
        for gone in update.delete:
            state.pop(gone)
        for name, endpoints in update.endpoints.items():
            state[f"cluster/{name}"]["endpoints"].update(endpoints)
        has = update.version if heard else None

    for step in steps:
        if step == "grow":
            author.grow()
        elif step == "renew":
            key += 1
            wanted = identity(str(key))
            overlay.set_identity(POD, wanted)
        elif step == "take away":
            wanted = None
            overlay.set_identity(POD, None)
        elif step == "forgot":
            has, state = None, {}
        else:
            fetch(heard=step == "fetch")
    fetch(heard=True)
    assert state.get("identity") == (None if wanted is None else msgspec.to_builtins(wanted))
    assert len(state["cluster/a/b:80"]["endpoints"]) == author.version - author.first
    assert overlay.plane_version(POD, has) == author.version
