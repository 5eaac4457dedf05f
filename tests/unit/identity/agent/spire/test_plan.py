from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.agent.spire.entries import Entry, Selector
from nginx_mesh.identity.agent.spire.plan import EntrySettings, Plan, plan, wanted

SETTINGS = EntrySettings(
    SpiffeId("example.org", "/spire/agent/a"),
    frozenset([Selector("unix", "uid:0"), Selector("unix", "path:/mesh")]),
    3600,
    frozenset(["partner.test"]),
)
WEB, DB = SpiffeId("example.org", "/web"), SpiffeId("example.org", "/db")

ids = st.sampled_from("abcdef").map(lambda name: SpiffeId("example.org", f"/{name}"))
registrations = st.lists(st.tuples(ids, st.lists(st.sampled_from(["x.y", "z"]))))
strangers = st.lists(
    st.builds(
        Entry,
        st.sampled_from(["theirs", "nginx-mesh-1", "nginx-mesh-", "other-" + 32 * "0", "nginx-mesh-" + 33 * "0"]),
        ids,
        st.sampled_from([SETTINGS.parent_id, SpiffeId("example.org", "/spire/agent/b")]),
        st.sampled_from([SETTINGS.selectors, frozenset([Selector("unix", "uid:0")])]),
    ),
    unique_by=lambda entry: entry.entry_id,
)


def apply(todo: Plan, existing: list[Entry]) -> list[Entry]:
    """What a server has afterwards."""
    found = {entry.entry_id: entry for entry in existing if entry.entry_id not in todo.surplus}
    assert not found.keys() & {entry.entry_id for entry in todo.create}
    assert found.keys() >= {entry.entry_id for entry in todo.update}
    return list((found | {entry.entry_id: entry for entry in (*todo.create, *todo.update)}).values())


@given(registrations, registrations, strangers)
def test_one_step_leads_from_anything_to_what_is_wanted(
    before: list[tuple[SpiffeId, list[str]]], after: list[tuple[SpiffeId, list[str]]], theirs: list[Entry]
) -> None:
    had = wanted(SETTINGS, before)
    existing = apply(plan(SETTINGS, had, theirs), theirs)
    want = wanted(SETTINGS, after)
    done = apply(plan(SETTINGS, want, existing), existing)
    assert plan(SETTINGS, want, done) == replace(plan(SETTINGS, want, done), create=(), update=(), surplus=frozenset())
    assert all(entry in done for entry in theirs)
    served = {e.spiffe_id for e in done if (e.parent_id, e.selectors) == (SETTINGS.parent_id, SETTINGS.selectors)}
    assert served >= want.keys()


def test_workloads_of_one_identity_share_an_entry_with_all_their_names() -> None:
    entries = wanted(SETTINGS, [(WEB, ["b.x", "a.x"]), (WEB, ["a.x", "c.x"]), (DB, [])])
    assert entries.keys() == {WEB, DB}
    assert entries[WEB].dns_names == ("a.x", "b.x", "c.x")
    assert entries[WEB].federates_with == {"partner.test"}
    assert entries[WEB].entry_id != entries[DB].entry_id
    assert all(SETTINGS.is_ours(entry) for entry in entries.values())


@pytest.mark.parametrize(
    "change",
    [
        {"dns_names": ("x",)},
        {"svid_ttl": 60},
        {"federates_with": frozenset()},
        {"selectors": frozenset([Selector("unix", "uid:1000")])},
        {"spiffe_id": DB},
    ],
)
def test_what_somebody_did_to_our_entry_is_undone(change: dict[str, object]) -> None:
    entries = wanted(SETTINGS, [(WEB, ["a", "b"])])
    changed = replace(entries[WEB], **change)  # type: ignore[arg-type]
    assert plan(SETTINGS, entries, [changed]) == Plan(update=(entries[WEB],))


def test_the_order_of_names_means_nothing() -> None:
    entries = wanted(SETTINGS, [(WEB, ["a", "b"])])
    assert plan(SETTINGS, entries, [replace(entries[WEB], dns_names=("b", "a"))]) == Plan()


def test_another_parent_or_other_selectors_make_another_entry() -> None:
    elsewhere = replace(SETTINGS, parent_id=SpiffeId("example.org", "/spire/agent/b"))
    otherwise = replace(SETTINGS, selectors=frozenset([Selector("unix", "uid:0")]))
    found = [wanted(settings, [(WEB, [])])[WEB].entry_id for settings in (SETTINGS, elsewhere, otherwise)]
    assert len(set(found)) == 3
    old = wanted(SETTINGS, [(WEB, [])])[WEB]
    assert plan(otherwise, {}, [old]).surplus == {old.entry_id}
    assert plan(elsewhere, {}, [old]) == Plan()


@pytest.mark.parametrize("text", ["", "unix", "unix:", ":uid", ":"])
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(ValueError, match="selector"):
        Selector.parse(text)


def test_a_selector_may_have_colons_in_its_value() -> None:
    assert Selector.parse("unix:uid:0") == Selector("unix", "uid:0")
    assert str(Selector.parse("docker:label:a:b")) == "docker:label:a:b"
