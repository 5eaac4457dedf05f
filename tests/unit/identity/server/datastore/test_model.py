"""Any sequence of calls leaves a datastore in SQLite as it leaves dictionaries."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nginx_mesh.identity.common.entry import RegistrationEntry
from nginx_mesh.identity.server.datastore import IN_MEMORY, DatastoreConfig, open_datastore
from nginx_mesh.identity.server.datastore.base import (
    AttestedNode,
    FederationRelationship,
    JoinToken,
)

# Few names, so that calls meet; such as a careless comparison would confuse.
names = st.sampled_from(["a", "A", "a ", "á", "", "b'", "%"])
domains = st.sampled_from(["one.example", "two.example", "One.example"])
strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3).map(tuple)
numbers = st.integers(-(2**63), 2**63 - 1)
documents = st.binary(max_size=40)
entry_records = st.builds(RegistrationEntry, names, names, names, strings, strings, numbers, numbers, numbers)
node_records = st.builds(AttestedNode, names, names, names, numbers, st.booleans(), st.booleans())
token_records = st.builds(JoinToken, names, names, st.integers(90, 110), st.booleans())
relationship_records = st.builds(
    FederationRelationship, domains, names, st.sampled_from(["https_spiffe", "https_web"]), names
)


class _Machine(RuleBasedStateMachine):
    config: DatastoreConfig

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.now = 100.0
        self.open()
        self.entries: dict[str, RegistrationEntry] = {}
        self.nodes: dict[str, AttestedNode] = {}
        self.tokens: dict[str, JoinToken] = {}
        self.documents: dict[str, bytes] = {}
        self.relationships: dict[str, FederationRelationship] = {}
        self.ca_records: dict[str, bytes] = {}
        self.cursor = 0
        self.touched: tuple[set[str], set[str]] = (set(), set())

    def open(self) -> None:
        self.store = open_datastore(self.config, self.directory / "data", lambda: self.now)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    @rule(records=st.lists(entry_records, max_size=4))
    def put_entries(self, records: list[RegistrationEntry]) -> None:
        self.store.put_entries(records)
        for record in records:
            old = self.entries.get(record.entry_id, record)
            self.entries[record.entry_id] = replace(record, created_at=old.created_at)
            self.touched[0].add(record.entry_id)

    @rule(ids=st.lists(names, max_size=4))
    def delete_entries(self, ids: list[str]) -> None:
        self.store.delete_entries(ids)
        self.touched[0].update(ids_ for ids_ in ids if self.entries.pop(ids_, None))

    @rule(ids=st.lists(names, max_size=4))
    def entries_by_id(self, ids: list[str]) -> None:
        assert set(self.store.entries_by_id(ids)) == {self.entries[each] for each in ids if each in self.entries}

    @rule(parent=names)
    def entries_of(self, parent: str) -> None:
        assert set(self.store.entries(parent)) == {e for e in self.entries.values() if e.parent_id == parent}

    @rule(record=node_records)
    def put_node(self, record: AttestedNode) -> None:
        self.store.put_node(record)
        known = self.nodes.get(record.spiffe_id, record)
        self.nodes[record.spiffe_id] = replace(record, banned=known.banned)

    @rule(name=names, banned=st.booleans())
    def ban_node(self, name: str, banned: bool) -> None:
        assert self.store.ban_node(name, banned) is (name in self.nodes)
        if name in self.nodes:
            self.nodes[name] = replace(self.nodes[name], banned=banned)

    @rule(name=names, serial=names, not_after=st.integers(0, 100))
    def renew_node(self, name: str, serial: str, not_after: int) -> None:
        known = self.nodes.get(name)
        renewed = known is not None and not known.banned
        assert self.store.renew_node(name, serial, not_after) is renewed
        if known is not None and renewed:
            self.nodes[name] = replace(known, serial=serial, not_after=not_after)

    @rule(name=names)
    def delete_node(self, name: str) -> None:
        self.store.delete_node(name)
        self.nodes.pop(name, None)
        gone = [e.entry_id for e in self.entries.values() if e.parent_id == name]
        for each in gone:
            del self.entries[each]
        self.touched[0].update(gone)

    @rule(record=token_records)
    def put_join_token(self, record: JoinToken) -> None:
        self.store.put_join_token(record)
        self.tokens = {name: kept for name, kept in self.tokens.items() if kept.expires_at > self.now}
        self.tokens[record.digest] = record

    @rule(name=names, now=st.integers(90, 110))
    def take_join_token(self, name: str, now: int) -> None:
        expected = self.tokens.pop(name, None)
        if expected is not None and expected.expires_at <= now:
            expected = None
        assert self.store.take_join_token(name, now) == expected

    @rule(domain=domains, document=documents, expected=st.none() | documents)
    def put_bundle_as_somebody_guesses(self, domain: str, document: bytes, expected: bytes | None) -> None:
        self._put_bundle(domain, document, expected)

    @rule(domain=domains, document=documents)
    def put_bundle(self, domain: str, document: bytes) -> None:
        self._put_bundle(domain, document, self.documents.get(domain))

    def _put_bundle(self, domain: str, document: bytes, expected: bytes | None) -> None:
        matches = self.documents.get(domain) == expected
        assert self.store.put_bundle(domain, document, expected) is matches
        if matches:
            self.documents[domain] = document
            self.touched[1].add(domain)

    @rule(record=relationship_records)
    def put_relationship(self, record: FederationRelationship) -> None:
        self.store.put_relationship(record)
        self.relationships[record.trust_domain] = record

    @rule(domain=domains)
    def delete_relationship(self, domain: str) -> None:
        self.store.delete_relationship(domain)
        self.relationships.pop(domain, None)
        if self.documents.pop(domain, None) is not None:
            self.touched[1].add(domain)

    @rule(name=names, records=documents)
    def put_ca_records(self, name: str, records: bytes) -> None:
        self.store.put_ca_records(name, records)
        self.ca_records[name] = records

    @rule()
    def changes(self) -> None:
        found = self.store.changes(self.cursor)
        assert found.complete
        assert len(found.entries) == len(set(found.entries))
        assert (set(found.entries), set(found.bundles)) == self.touched
        assert found.cursor >= self.cursor
        self.cursor = found.cursor
        self.touched = (set(), set())

    @rule()
    @precondition(lambda self: self.config is not IN_MEMORY)
    def restart(self) -> None:
        self.store.close()
        self.open()

    @invariant()
    def same(self) -> None:
        assert {each.entry_id: each for each in self.store.entries()} == self.entries
        assert {each.spiffe_id: each for each in self.store.nodes()} == self.nodes
        assert self.store.bundles() == self.documents
        assert {each.trust_domain: each for each in self.store.relationships()} == self.relationships
        assert {name: self.store.ca_records(name) for name in self.ca_records} == self.ca_records


class _InMemory(_Machine):
    config = IN_MEMORY


class _InFile(_Machine):
    config = DatastoreConfig()


_InMemory.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
_InFile.TestCase.settings = settings(
    max_examples=6, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestInMemory = _InMemory.TestCase
TestInFile = _InFile.TestCase
