"""Pages of lists, and events of watches, as a real API server answers with them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.documents import read_one
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.kinds import decode
from nginx_mesh.api.listing import Status, WatchEvent, decode_list, decode_watch_event

from . import corpus
from .test_cluster_objects import JUNK, places


def events() -> list[WatchEvent]:
    return [decode_watch_event(read_one(line, "watch")) for line in corpus.watch()]


def test_a_page_of_a_list_says_what_follows_and_what_its_items_are() -> None:
    page = decode_list(read_one((corpus.DIRECTORY / "list-page.json").read_bytes(), "list"))
    assert page.metadata.resource_version == "497"
    assert page.metadata.continue_.startswith("eyJ")
    assert page.metadata.remaining_item_count == 8
    assert [str(decode(item).key) for item in page.items] == ["Pod default/agent-g25w9"]


def test_a_list_that_is_not_cut_into_pages_is_its_only_page() -> None:
    page = decode_list(corpus.read("pods.json"))
    assert (page.metadata.continue_, page.metadata.remaining_item_count) == ("", None)
    assert page.items == corpus.objects("pods.json")


def test_null_stands_for_an_empty_list() -> None:
    page = decode_list({"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": None}, "items": None})
    assert page.items == []


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ([], "kind: is not that of a list"),
        ({"kind": "Pod"}, "kind: is not that of a list"),
        ({"kind": "PodList", "items": {}}, "items: must be a list, not a mapping"),
        ({"kind": "PodList", "items": [{}, 5]}, "items[1]: must be a mapping, not an integer"),
        ({"kind": "PodList", "metadata": []}, "metadata: must be a mapping, not a list"),
        ({"kind": "PodList", "metadata": {"continue": 5}}, "metadata.continue: must be a string, not an integer"),
    ],
)
def test_what_is_no_list_says_why(raw: Any, error: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode_list(raw)
    assert str(caught.value).startswith(error)


def test_a_watch_tells_all_there_is_and_then_that_it_has() -> None:
    *added, last = events()
    assert {event.type for event in added} == {"ADDED"}
    assert not any(event.ends_initial_events for event in added)
    names = [decode(event.object).metadata.name for event in added]
    assert names == [raw["metadata"]["name"] for raw in corpus.objects("pods.json")]
    assert last.type == "BOOKMARK" and last.ends_initial_events
    assert int(last.metadata.resource_version) >= max(int(event.metadata.resource_version) for event in added)


@pytest.mark.parametrize("annotations", [None, {}, {"k8s.io/initial-events-end": "false"}])
def test_a_later_bookmark_does_not_end_the_initial_events(annotations: Any) -> None:
    metadata = {"resourceVersion": "9", "annotations": annotations}
    event = decode_watch_event({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": metadata}})
    assert not event.ends_initial_events
    assert event.metadata.resource_version == "9"


def test_a_watch_that_cannot_go_on_says_why() -> None:
    expired = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "too old resource version: 1 (497)",
        "reason": "Expired",
        "code": 410,
    }
    event = decode_watch_event({"type": "ERROR", "object": expired})
    assert event.status == Status(code=410, reason="Expired", message="too old resource version: 1 (497)")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ([], "must be a mapping, not a list"),
        ({"type": "ADDED"}, "object: is required"),
        ({"type": "GONE", "object": {}}, 'type: "GONE" is not one of ADDED, '),
        ({"type": "ADDED", "object": "x"}, "object: must be a mapping, not a string"),
        ({"type": "ADDED", "object": {"metadata": []}}, "object.metadata: must be a mapping, not a list"),
    ],
)
def test_what_is_no_event_says_why(raw: Any, error: str) -> None:
    with pytest.raises(FieldError) as caught:
        assert decode_watch_event(raw).metadata
    assert str(caught.value).startswith(error)


LINES = [read_one(line, "watch") for line in corpus.watch()[-2:]]


@given(st.sampled_from([(line, place) for line in LINES for place in places(line)]), JUNK)
def test_a_damaged_event_is_an_event_or_says_why_not(case: tuple[Any, tuple[str | int, ...]], junk: Any) -> None:
    line, place = copy.deepcopy(case[0]), case[1]
    parent = line
    for part in place[:-1]:
        parent = parent[part]
    parent[place[-1]] = junk
    try:
        event = decode_watch_event(line)
        assert event.metadata.name is not None
        assert event.ends_initial_events in (True, False)
    except FieldError as error:
        assert error.field.split(".")[0] in ("type", "object")
