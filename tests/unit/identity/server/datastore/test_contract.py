"""What every datastore does, whatever database it is in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from nginx_mesh.identity.common.entry import RegistrationEntry
from nginx_mesh.identity.server.datastore import IN_MEMORY, Datastore, DatastoreConfig, DatastoreError
from nginx_mesh.identity.server.datastore.base import (
    AttestedNode,
    Changes,
    FederationRelationship,
    JoinToken,
)

from .conftest import Clock, Opener

AGENT = "spiffe://example.org/agent/one"
DAY = 24 * 3600


def entry(entry_id: str, parent: str = AGENT, **more: object) -> RegistrationEntry:
    made = RegistrationEntry(entry_id, f"spiffe://example.org/ns/default/sa/{entry_id.lower().strip()}", parent)
    return replace(made, **more)  # type: ignore[arg-type]


def node(name: str, **more: object) -> AttestedNode:
    made = AttestedNode(f"spiffe://example.org/agent/{name}", "join_token", f"{2**160 - 1} {2**160 - 2}", 1_700_003_600)
    return replace(made, **more)  # type: ignore[arg-type]


def token(digest: str, expires_at: int = 1_700_000_600) -> JoinToken:
    return JoinToken(digest, AGENT, expires_at)


def race(*tasks: Callable[[], object]) -> list[object]:
    """What the tasks return, run at once in threads; an error is a result as well."""
    barrier = threading.Barrier(len(tasks))
    results: list[object] = [None] * len(tasks)

    def run(number: int, task: Callable[[], object]) -> None:
        barrier.wait()
        try:
            results[number] = task()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_new_datastore_is_empty(store: Datastore) -> None:
    assert [*store.entries(), *store.nodes(), *store.relationships(), *store.bundles()] == []
    assert (store.node(AGENT), store.bundle("example.org"), store.ca_records("server")) == (None, None, None)
    assert store.take_join_token("0" * 64, 0) is None
    assert store.changes(0) == Changes(0)
    store.delete_entries(["nobody"])
    store.delete_node(AGENT)
    store.delete_relationship("example.org")
    store.delete_relationship("example.org")
    assert store.changes(0) == Changes(0)


def test_an_entry_comes_back_as_it_was_put(store: Datastore) -> None:
    full = RegistrationEntry(
        "3f0c-ü",
        "spiffe://example.org/ns/default/sa/web",
        AGENT,
        selectors=("k8s:ns:default", "k8s:label:a=\"b'c\\", "k8s:\N{SNOWMAN}"),
        dns_names=("web.default.svc", "web"),
        x509_ttl=3600,
        jwt_ttl=2**40,
        created_at=1_700_000_000,
    )
    bare = entry("bare")
    store.put_entries([full, bare])
    assert set(store.entries()) == {full, bare}
    assert store.entries_by_id(["bare", "unknown", "bare"]) == [bare]
    assert store.entries_by_id([]) == []


def test_entries_are_found_by_their_agent(store: Datastore) -> None:
    store.put_entries([entry("a"), entry("b"), entry("c", parent=AGENT + "/other"), entry("d", parent=AGENT.upper())])
    assert {found.entry_id for found in store.entries(AGENT)} == {"a", "b"}
    assert store.entries("spiffe://example.org/agent/none") == []


def test_an_entry_is_replaced_but_not_its_time_of_creation(store: Datastore) -> None:
    store.put_entries([entry("a", created_at=100, dns_names=("old",))])
    store.put_entries([entry("a", created_at=200, dns_names=("new",)), entry("b", created_at=200)])
    assert set(store.entries()) == {entry("a", created_at=100, dns_names=("new",)), entry("b", created_at=200)}


def test_of_two_entries_with_one_id_the_last_counts(store: Datastore) -> None:
    store.put_entries([entry("a", x509_ttl=1), entry("a", x509_ttl=2)])
    assert store.entries() == [entry("a", x509_ttl=2)]
    assert store.changes(0).entries == ("a",)


def test_names_are_compared_byte_by_byte(store: Datastore) -> None:
    names = ["web", "WEB", "web ", "wéb", "we\u0301b", "w_b", "%"]
    store.put_entries(entry(name) for name in names)
    assert sorted(found.entry_id for found in store.entries()) == sorted(names)
    assert store.entries_by_id(["Web"]) == []
    store.delete_entries(["WEB"])
    assert len(store.entries()) == len(names) - 1
    store.put_bundle("a", b"small", None)
    assert store.bundle("A") is None


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry("x" * 256), "has 256 bytes, at most 255"),
        (entry("é" * 128), "has 256 bytes, at most 255"),
        (entry("bad", spiffe_id="spiffe://example.org/" + "x" * 2048), "at most 2048"),
        (entry("bad\0"), "NUL"),
        (entry("bad\udc80"), "surrogates not allowed"),
        (entry("bad", selectors=("\udc80",)), "surrogates not allowed"),
        (entry("bad", x509_ttl=2**63), ""),
        (entry("bad", jwt_ttl=-(2**70)), ""),
    ],
)
def test_of_entries_with_a_bad_one_none_is_put(store: Datastore, bad: RegistrationEntry, reason: str) -> None:
    store.put_entries([entry("good", x509_ttl=1)])
    cursor = store.changes(0).cursor
    with pytest.raises(DatastoreError, match=f"datastore .*{reason}"):
        store.put_entries([entry("good", x509_ttl=2), entry("other"), bad])
    assert store.entries() == [entry("good", x509_ttl=1)]
    assert store.changes(cursor) == Changes(cursor)
    store.put_entries([entry("other")])  # it goes on


def test_sql_in_values_is_text(store: Datastore) -> None:
    evil = "'; DROP TABLE entries; -- %s :name ? \\"
    store.put_entries([entry(evil, selectors=(evil,), dns_names=(evil,))])
    assert store.entries_by_id([evil]) == store.entries() == [entry(evil, selectors=(evil,), dns_names=(evil,))]
    store.delete_entries([evil])
    assert store.entries() == []


def test_changes_tell_what_was_touched_each_once(store: Datastore) -> None:
    store.put_entries([entry("a"), entry("b")])
    store.put_entries([entry("a")])
    store.put_bundle("example.org", b"1", None)
    first = store.changes(0)
    assert (sorted(first.entries), first.bundles, first.complete) == (["a", "b"], ("example.org",), True)
    assert store.changes(first.cursor) == Changes(first.cursor)
    store.delete_entries(["b", "unknown"])
    store.put_bundle("example.org", b"2", b"1")
    store.delete_relationship("example.org")
    store.delete_relationship("unknown")
    second = store.changes(first.cursor)
    assert (second.entries, second.bundles, second.complete) == (("b",), ("example.org",), True)
    assert second.cursor > first.cursor
    store.put_node(node("n"))
    store.put_ca_records("server", b"j")
    assert store.changes(second.cursor) == Changes(second.cursor)


def test_changes_older_than_a_day_are_forgotten_and_readers_who_missed_them_hear_so(
    store: Datastore, clock: Clock
) -> None:
    store.put_entries([entry("old")])
    start = store.changes(0).cursor
    clock.now += DAY - 1
    store.put_entries([entry("young")])
    assert store.changes(0).complete
    kept = store.changes(0).cursor
    clock.now += 3601
    store.put_entries([entry("new")])
    missed = store.changes(0)
    assert (missed.complete, missed.entries) == (False, ())
    assert store.changes(missed.cursor) == Changes(missed.cursor)
    assert store.changes(start).entries == ("young", "new")  # it had read all that is forgotten
    assert store.changes(kept).entries == ("new",)
    clock.now += 10 * DAY
    store.put_bundle("example.org", b"1", None)
    assert store.changes(kept) == Changes(store.changes(0).cursor, complete=False)
    assert store.changes(store.changes(kept).cursor).complete


@pytest.mark.parametrize("cursor", [-1, 3, 10**12])
def test_a_cursor_from_elsewhere_is_told_from_a_good_one(store: Datastore, cursor: int) -> None:
    store.put_entries([entry("a"), entry("b")])
    answer = store.changes(cursor)
    assert (answer.complete, answer.entries) == (False, ())
    assert store.changes(answer.cursor) == Changes(answer.cursor)


def test_nodes_are_put_found_and_replaced(store: Datastore) -> None:
    store.put_node(node("a"))
    store.put_node(node("b", registrar=True))
    store.put_node(node("a", serial="5", not_after=7))
    assert set(store.nodes()) == {node("a", serial="5", not_after=7), node("b", registrar=True)}
    assert store.node(node("b").spiffe_id) == node("b", registrar=True)
    assert store.node(node("A").spiffe_id) is None


def test_a_banned_node_stays_banned_until_it_is_readmitted(store: Datastore) -> None:
    one = node("one", serial="1", not_after=10)
    store.put_node(one)
    assert store.renew_node(AGENT, "2", 20)
    assert store.ban_node(AGENT, True)
    assert not store.renew_node(AGENT, "3", 30)
    assert store.node(AGENT) == replace(one, serial="2", not_after=20, banned=True)
    store.put_node(replace(one, serial="4"))
    assert store.node(AGENT) == replace(one, serial="4", banned=True)
    assert store.ban_node(AGENT, False)
    assert store.renew_node(AGENT, "4", 10)
    assert store.node(AGENT) == replace(one, serial="4")
    assert not store.ban_node(node("two").spiffe_id, True)
    assert not store.renew_node(node("two").spiffe_id, "1", 10)
    assert store.nodes() == [replace(one, serial="4")]


def test_a_node_takes_its_entries_along(store: Datastore) -> None:
    store.put_node(node("one"))
    store.put_node(node("two"))
    store.put_entries([entry("a"), entry("b"), entry("c", parent=node("two").spiffe_id)])
    cursor = store.changes(0).cursor
    store.delete_node(AGENT)
    assert store.nodes() == [node("two")]
    assert [found.entry_id for found in store.entries()] == ["c"]
    assert sorted(store.changes(cursor).entries) == ["a", "b"]


def test_a_join_token_is_good_once_and_before_it_expires(store: Datastore) -> None:
    store.put_join_token(token("a" * 64))
    store.put_join_token(replace(token("b" * 64), registrar=True))
    assert store.take_join_token("c" * 64, 1_700_000_000) is None
    assert store.take_join_token("a" * 64, 1_700_000_599) == token("a" * 64)
    assert store.take_join_token("a" * 64, 1_700_000_599) is None
    assert store.take_join_token("b" * 64, 1_700_000_600) is None
    assert store.take_join_token("b" * 64, 1_700_000_000) is None  # whoever came too late used it up


def test_tokens_that_expired_are_forgotten_when_another_is_made(store: Datastore, clock: Clock) -> None:
    store.put_join_token(token("a" * 64))
    clock.now = 1_700_000_600
    store.put_join_token(token("b" * 64, 1_700_001_000))
    assert store.take_join_token("a" * 64, 1_700_000_000) is None
    assert store.take_join_token("b" * 64, 1_700_000_000) is not None


def test_a_bundle_is_replaced_only_as_expected(store: Datastore) -> None:
    assert not store.put_bundle("example.org", b"1", b"0")
    assert store.bundle("example.org") is None
    assert store.put_bundle("example.org", b"1", None)
    assert not store.put_bundle("example.org", b"2", None)
    assert not store.put_bundle("example.org", b"2", b"0")
    cursor = store.changes(0).cursor
    assert store.put_bundle("example.org", b"2\x00\xff" + bytes(100_000), b"1")
    assert store.put_bundle("other.example", b"", None)
    assert store.bundles() == {"example.org": b"2\x00\xff" + bytes(100_000), "other.example": b""}
    assert store.bundle("example.org") == b"2\x00\xff" + bytes(100_000)
    assert store.bundle("other.example") == b""
    assert set(store.changes(cursor).bundles) == {"example.org", "other.example"}
    store.delete_relationship("example.org")
    assert store.bundles() == {"other.example": b""}


def test_a_relationship_takes_its_bundle_along(store: Datastore) -> None:
    web = FederationRelationship("a.example", "https://a.example/bundle", "https_web")
    spiffe = FederationRelationship("a.example", "https://a.example:8443/", "https_spiffe", "spiffe://a.example/server")
    other = FederationRelationship("b.example", "https://b.example/" + "p" * 5000, "https_web")
    for relationship in (web, other, spiffe):
        store.put_relationship(relationship)
    assert sorted(store.relationships(), key=str) == [spiffe, other]
    store.put_bundle("a.example", b"a", None)
    store.put_bundle("b.example", b"b", None)
    cursor = store.changes(0).cursor
    store.delete_relationship("a.example")
    assert store.relationships() == [other]
    assert store.bundles() == {"b.example": b"b"}
    assert store.changes(cursor).bundles == ("a.example",)


def test_each_server_has_its_ca_records(store: Datastore) -> None:
    store.put_ca_records("one", b"1")
    store.put_ca_records("two", bytes(range(256)) * 1000)
    store.put_ca_records("one", b"")
    assert store.ca_records("one") == b""
    assert store.ca_records("two") == bytes(range(256)) * 1000
    assert store.ca_records("three") is None


def test_what_one_server_commits_the_others_find(another: Opener, config: DatastoreConfig) -> None:
    if config == IN_MEMORY:
        pytest.skip("a database in memory has one server")
    one, two = another(), another()
    cursor = two.changes(0).cursor
    one.put_entries([entry("a")])
    one.put_bundle("example.org", b"1", None)
    one.put_node(node("one"))
    found = two.changes(cursor)
    assert (found.entries, found.bundles) == (("a",), ("example.org",))
    assert two.entries_by_id(found.entries) == [entry("a")]
    assert two.bundles() == {"example.org": b"1"}
    assert two.nodes() == [node("one")]


def test_of_many_that_take_a_token_one_has_it(another: Opener, config: DatastoreConfig) -> None:
    stores = [another() for _ in range(1 if config == IN_MEMORY else 3)]
    for round_ in range(5):
        digest = f"{round_:064}"
        stores[0].put_join_token(token(digest))
        results = race(*(partial(taker.take_join_token, digest, 0) for taker in stores * (6 // len(stores))))
        assert sorted(results, key=repr) == [token(digest), *[None] * 5]


def test_of_many_that_replace_a_bundle_one_does(another: Opener, config: DatastoreConfig) -> None:
    stores = [another() for _ in range(1 if config == IN_MEMORY else 3)]
    held: bytes | None = None
    for round_ in range(5):
        documents = [f"{round_}/{number}".encode() for number in range(6)]
        putters = stores * (6 // len(stores))
        results = race(
            *(
                partial(putter.put_bundle, "example.org", document, held)
                for putter, document in zip(putters, documents, strict=True)
            )
        )
        assert sorted(results, key=repr) == [*[False] * 5, True]
        held = stores[0].bundle("example.org")
        assert held == documents[results.index(True)]
    assert len(stores[-1].changes(0).bundles) == 1


def test_a_reader_of_changes_misses_none_while_servers_write(another: Opener, config: DatastoreConfig) -> None:
    stores = [another() for _ in range(1 if config == IN_MEMORY else 3)]
    stop = threading.Event()
    seen: list[str] = []

    def write(number: int) -> None:
        for count in range(25):
            # Large and small ones, so that transactions which began first do not end first.
            stores[number % len(stores)].put_entries(
                entry(f"{number}/{count}/{part}") for part in range(200 if (number + count) % 3 == 0 else 1)
            )

    def read() -> None:
        cursor, last = 0, False
        while not last:
            last = stop.is_set()
            stop.wait(0.005)
            found = stores[-1].changes(cursor)
            assert found.complete
            seen.extend(found.entries)
            cursor = found.cursor

    def write_all() -> None:
        try:
            assert race(*(partial(write, number) for number in range(4))) == [None] * 4
        finally:
            stop.set()

    assert race(write_all, read) == [None, None]
    assert len(seen) == len(set(seen))
    assert sorted(seen) == sorted(found.entry_id for found in stores[0].entries())


def test_after_it_is_closed_it_says_so(store: Datastore) -> None:
    store.close()
    with pytest.raises(DatastoreError, match=r"datastore .*: closed"):
        store.entries()
    with pytest.raises(DatastoreError, match=r"datastore .*: closed"):
        store.put_entries([entry("a")])
    store.close()
