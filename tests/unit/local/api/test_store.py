"""The object store: transactions, watches, and what is left after the process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.local.api.store import ObjectChange, Store, StoreError

NOW = 1_700_000_000.0


def config_map(name: str, namespace: str = "default", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def key(name: str, namespace: str = "default") -> ObjectKey:
    return ObjectKey("ConfigMap", namespace, name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def open_store(path: Path) -> Store:
    return Store(path, lambda: NOW)


def test_an_object_keeps_its_identity_and_counts_its_changes(path: Path) -> None:
    store = open_store(path)
    with store.transaction() as tx:
        assert tx.put(config_map("a", x="1")) == "created"
    first = store.get(key("a"))
    assert first is not None
    assert first["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
    with store.transaction() as tx:
        assert tx.put(config_map("a", x="1")) == "unchanged"
        assert tx.put(config_map("a", x="2")) == "configured"
        labelled = config_map("a", x="2")
        labelled["metadata"]["labels"] = {"l": "1"}
        assert tx.put(labelled) == "configured"
    second = store.get(key("a"))
    assert second is not None
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["metadata"]["generation"] == 2
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])


def test_a_failed_transaction_changes_nothing_and_tells_nobody(path: Path) -> None:
    store = open_store(path)
    told: list[ObjectChange] = []
    store.watch(told.append)
    with pytest.raises(RuntimeError), store.transaction() as tx:
        tx.put(config_map("a"))
        assert tx.get(key("a")) is not None
        raise RuntimeError
    assert (store.list(), told, open_store(path).list()) == ([], [], [])


def test_watchers_hear_of_changes_in_order_even_of_those_they_make(path: Path) -> None:
    store = open_store(path)
    told: list[str] = []

    def follow(change: ObjectChange) -> None:
        if change.key.name == "a" and change.new is not None:
            with store.transaction() as tx:
                tx.put(config_map("c"))

    store.watch(follow)
    store.watch(lambda change: told.append(change.key.name + ("+" if change.new else "-")))
    with store.transaction() as tx:
        tx.put(config_map("a"))
        tx.put(config_map("b"))
    with store.transaction() as tx:
        tx.remove(key("a"))
    assert told == ["a+", "b+", "c+", "a-"]


def test_a_transaction_lists_what_it_changed(path: Path) -> None:
    store = open_store(path)
    with store.transaction() as tx:
        tx.put(config_map("a"))
        tx.put(config_map("b"))
        tx.put(config_map("c", namespace="other"))
    with store.transaction() as tx:
        tx.remove(key("a"))
        tx.put(config_map("d"))
        assert [item["metadata"]["name"] for item in tx.list("ConfigMap", "default")] == ["b", "d"]
        assert [item["metadata"]["name"] for item in tx.list()] == ["b", "d", "c"]


def test_everything_committed_survives_a_killed_process(path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from nginx_mesh.local.api.store import Store
store = Store(Path({str(path)!r}), lambda: 0.0)
for number in range(20):
    with store.transaction() as tx:
        tx.put({{"kind": "ConfigMap", "metadata": {{"name": f"n{{number:02}}", "namespace": "default"}}}})
        tx.set_fact("cursor", str(number))
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -signal.SIGKILL
    store = open_store(path)
    assert len(store.list("ConfigMap")) == 20
    assert store.fact("cursor") == "19"
    before = max(int(item["metadata"]["resourceVersion"]) for item in store.list())
    with store.transaction() as tx:
        tx.put(config_map("later"))
    later = store.get(key("later"))
    assert later is not None
    assert int(later["metadata"]["resourceVersion"]) > before


def test_secrets_in_the_database_are_for_its_owner_only(path: Path) -> None:
    old = os.umask(0)
    try:
        store = open_store(path)
        with store.transaction() as tx:
            tx.put(config_map("a"))
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert set(modes.values()) == {0o600}


def test_a_file_that_is_no_database_is_a_clear_error(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match=r"store\.db"):
        open_store(path)


def test_on_a_full_disk_what_is_not_durable_counts_at_once_and_is_written_later(path: Path) -> None:
    store = open_store(path)
    with store.transaction() as tx:
        tx.put(config_map("a", x="old"))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = "x" * 100_000
    with pytest.raises(StoreError, match="full"), store.transaction() as tx:
        tx.put(config_map("a", x=big))
    assert store.list("ConfigMap")[0]["data"] == {"x": "old"}
    with store.transaction(durable=False) as tx:
        tx.put(config_map("a", x=big))
    assert store.list("ConfigMap")[0]["data"] == {"x": big}
    assert "full" in store.problem()
    assert open_store(path).list("ConfigMap")[0]["data"] == {"x": "old"}
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.problem() == ""
    assert open_store(path).list("ConfigMap")[0]["data"] == {"x": big}
    with store.transaction() as tx:
        tx.put(config_map("b"))
    kept = {item["metadata"]["name"]: item["data"] for item in open_store(path).list("ConfigMap")}
    assert kept == {"a": {"x": big}, "b": {}}
