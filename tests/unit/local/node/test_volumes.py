"""Files of ConfigMaps and Secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.config import ConfigMap, Secret
from nginx_mesh.api.meta import Object, ObjectMeta
from nginx_mesh.api.pods import Pod
from nginx_mesh.local.node.volumes import ConfigError, ProjectedFile, mount_volumes, write_projection
from nginx_mesh.local.paths import MeshPaths

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")


def pod_with(*volumes: dict[str, Any]) -> Pod:
    spec = {"containers": [], "volumes": list(volumes)}
    return msgspec.convert({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}, Pod)


def mounted(paths: MeshPaths, volume: dict[str, Any], *objects: Object) -> Path:
    known = {obj.key: obj for obj in objects}
    return mount_volumes(pod_with({"name": "v", **volume}), paths, known.get)["v"].source


def config_map(data: dict[str, str], **fields: Any) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="c", namespace="ns"), data=data, **fields)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[MeshPaths]:
    # Unix sockets do not matter here, and pytest's directories are too deep for them.
    short = Path("/tmp") / f"v{os.getpid()}{abs(hash(tmp_path)) % 10**6}"  # noqa: S108
    short.symlink_to(tmp_path)
    try:
        yield MeshPaths("m", short)
    finally:
        short.unlink()


@needs_root
def test_all_keys_or_only_the_chosen_ones_become_files(paths: MeshPaths) -> None:
    data = config_map({"a": "1", "b": "2"}, binary_data={"c": "AP8="})
    everything = mounted(paths, {"configMap": {"name": "c"}}, data)
    assert {path.name: path.read_bytes() for path in everything.iterdir()} == {"a": b"1", "b": b"2", "c": b"\0\xff"}
    items = [{"key": "a", "path": "deep/er", "mode": 0o600}]
    chosen = mounted(paths, {"configMap": {"name": "c", "items": items, "defaultMode": 0o640}}, data)
    assert [path for path in chosen.rglob("*") if path.is_file()] == [chosen / "deep/er"]
    assert (chosen / "deep/er").stat().st_mode & 0o777 == 0o600


@needs_root
def test_a_secrets_directory_is_roots_alone_above_the_volume(paths: MeshPaths) -> None:
    secret = Secret(metadata=ObjectMeta(name="s", namespace="ns"), data={"k": "cw=="})
    paths.make()
    source = mounted(paths, {"secret": {"secretName": "s", "defaultMode": 0o400}}, secret)
    assert (source / "k").stat().st_mode & 0o777 == 0o400
    assert source.is_relative_to(paths.run) and paths.run.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "..data", "", ".", "a//../b"])
def test_a_path_that_leaves_the_volume_is_refused(paths: MeshPaths, path: str) -> None:
    items = [{"key": "a", "path": path}]
    with pytest.raises(ConfigError, match=r"spec\.volumes\[0\]\.configMap\.items\[0\]\.path"):
        mounted(paths, {"configMap": {"name": "c", "items": items}}, config_map({"a": "1"}))


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, r"spec\.volumes\[0\]\.configMap: ConfigMap ns/no does not exist"),
        ({"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}}, "no key 'z'"),
        ({"configMap": {"name": "c", "defaultMode": 0o7777}}, "mode"),
        ({"configMap": {"name": "bad"}}, "base64"),
        ({"hostPath": {"path": "/"}}, r"spec\.volumes\[0\]: must be one of"),
        ({"csi": {"driver": "other"}}, r"spec\.volumes\[0\]\.csi\.driver"),
        ({"name": "../v"}, r"spec\.volumes\[0\]\.name"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "x"}, {"key": "a", "path": "x/y"}]}}, "below"),
    ],
)
def test_a_fault_names_its_field(paths: MeshPaths, volume: dict[str, Any], message: str) -> None:
    bad = ConfigMap(metadata=ObjectMeta(name="bad", namespace="ns"), binary_data={"a": "%"})
    with pytest.raises(ConfigError, match=message):
        mounted(paths, volume, config_map({"a": "1"}), bad)


@needs_root
def test_optional_sources_may_be_missing(paths: MeshPaths) -> None:
    assert list(mounted(paths, {"configMap": {"name": "no", "optional": True}}).iterdir()) == []


_names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map("/".join)
_trees = st.dictionaries(_names, st.binary(max_size=3), max_size=5).filter(
    lambda tree: not any(other.startswith(name + "/") for name in tree for other in tree)
)


@needs_root
@given(st.lists(_trees, min_size=1, max_size=4))
def test_a_projection_is_exactly_what_was_last_written(tmp_path_factory: Any, trees: list[dict[str, bytes]]) -> None:
    directory: Path = tmp_path_factory.mktemp("projection")
    for tree in trees:
        write_projection(directory, {name: ProjectedFile(data, 0o644) for name, data in tree.items()}, group=None)
        found = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
        assert found == tree


@needs_root
def test_a_file_that_did_not_change_is_not_replaced(tmp_path: Path) -> None:
    files = {"a": ProjectedFile(b"1", 0o644), "b": ProjectedFile(b"2", 0o644)}
    write_projection(tmp_path, files, group=None)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    write_projection(tmp_path, {**files, "b": ProjectedFile(b"3", 0o644)}, group=None)
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert after["a"] == before["a"] and after["b"] != before["b"]
