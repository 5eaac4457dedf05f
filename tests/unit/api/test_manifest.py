from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.kinds import KINDS
from nginx_mesh.api.manifest import MAX_OBJECTS, load
from nginx_mesh.api.meta import ObjectKey

MIXED = b"""
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: Web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Gadget
metadata: {name: x}
---
just text
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"""


def test_what_is_sound_is_loaded_and_what_is_not_says_why() -> None:
    manifest = load(MIXED, "app.yaml")
    assert [str(loaded.object.key) for loaded in manifest.objects] == ["Service shop/web", "Namespace shop"]
    assert manifest.objects[1].source == "app.yaml document 5"
    assert [str(error).partition(" must ")[0] for error in manifest.errors] == [
        'app.yaml document 2: Service shop/Web: metadata.name: "Web"',
        'app.yaml document 3: Gadget x: kind: unknown kind "Gadget" of apiVersion "v1"',
        "app.yaml document 4: is not an object: it",
    ]


def test_objects_without_a_namespace_go_to_the_given_one() -> None:
    service = b"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"
    namespace = b"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
    first, second = load(service + namespace, "f", namespace="shop").objects
    assert first.object.key == ObjectKey("Service", "shop", "web")
    assert first.raw["metadata"]["namespace"] == "shop"
    assert "namespace" not in second.raw["metadata"]


def test_lists_are_flattened() -> None:
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}
    listed = {"apiVersion": "v1", "kind": "PodList", "items": [pod]}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [listed, {"apiVersion": "v1", "kind": "Pod"}]})
    manifest = load(text.encode(), "f")
    assert [loaded.object.key for loaded in manifest.objects] == [ObjectKey("Pod", "default", "a")]
    assert [str(error) for error in manifest.errors] == ["f document 1: Pod: metadata: is required"]


@pytest.mark.parametrize("items", ['"x"', "{}", "5"])
def test_a_list_has_items(items: str) -> None:
    manifest = load(f'{{"apiVersion": "v1", "kind": "List", "items": {items}}}'.encode(), "f")
    assert [str(error) for error in manifest.errors] == ["f document 1: items: must be a list"]


def test_fields_that_are_not_modelled_stay_in_the_raw_object() -> None:
    spec = {"containers": [{"name": "c", "tty": True}], "dnsPolicy": "Default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
    (loaded,) = load(json.dumps(pod).encode(), "f").objects
    assert loaded.raw["spec"] == spec


@pytest.mark.parametrize(
    "data",
    [
        b"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n" * 10_000,
        b'{"apiVersion": "v1", "kind": "NamespaceList", "items": [' + b'{"metadata": {"name": "a"}},' * 9_999 + b"{}]}",
    ],
)
def test_ten_thousand_objects_are_too_many(data: bytes) -> None:
    manifest = load(data, "f")
    assert len(manifest.objects) == MAX_OBJECTS
    assert len(manifest.errors) == 1
    assert "there are more than 5000" in str(manifest.errors[0])


def test_an_error_is_one_line_that_no_terminal_acts_on() -> None:
    manifest = load(b'apiVersion: v1\nkind: "Po\\e[2Jd\\n"\nmetadata: {name: "x\\ny"}', "f")
    (error,) = manifest.errors
    assert str(error).isprintable()
    long_key = load(b"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + b"x" * 1_000_000 + b"}", "f")
    assert len(str(long_key.errors[0])) < 1000


@given(st.binary())
def test_loading_bytes_never_raises(data: bytes) -> None:
    manifest = load(data, "f")
    assert all(str(error) for error in manifest.errors)


keys = st.sampled_from(
    [
        "name",
        "namespace",
        "labels",
        "spec",
        "ports",
        "port",
        "containers",
        "template",
        "metadata",
        "selector",
        "matchLabels",
        "items",
        "rules",
        "matches",
        "mtls",
        "readinessProbe",
        "httpGet",
        "volumes",
        "configMap",
        "destination",
        "sources",
        "rate",
    ]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=25,
)


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(keys, junk), junk)
def test_loading_objects_of_any_shape_never_raises(version: tuple[str, str], fields: dict[str, Any], spec: Any) -> None:
    raw = {"metadata": {"name": "a"}, **fields, "spec": spec, "apiVersion": version[0], "kind": version[1]}
    manifest = load(json.dumps(raw).encode(), "f")
    assert manifest.objects or manifest.errors
    for loaded in manifest.objects:
        orjson.dumps(loaded.raw)
