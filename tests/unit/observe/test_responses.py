"""JSON responses, and errors as Kubernetes Status objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from nginx_mesh.observe.responses import json_response, status_response


class Struct(msgspec.Struct, rename="camel"):
    spiffe_id: str


@dataclass
class Data:
    rate: float | None


def body(response: Any) -> Any:
    return json.loads(response.body)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": [1, None, True]}, {"a": [1, None, True]}),
        (Struct("spiffe://a/b"), {"spiffeId": "spiffe://a/b"}),
        ([Data(0.5), Data(float("nan"))], [{"rate": 0.5}, {"rate": None}]),
        (msgspec.Raw(b'{"made": "before"}'), {"made": "before"}),
    ],
)
def test_documents_structs_and_json_that_was_made_before_are_answered_as_json(content: Any, expected: Any) -> None:
    response = json_response(content, 201)
    assert (response.status, response.content_type) == (201, "application/json")
    assert body(response) == expected


def test_an_error_is_a_status_whose_details_are_an_object_or_the_lines_given() -> None:
    response = status_response(404, "NotFound", "pods not found")
    assert response.status == 404
    assert body(response) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "pods not found",
        "reason": "NotFound",
        "details": {},
        "code": 404,
    }
    assert body(status_response(422, "Invalid", "two faults", ["one", "two"]))["details"] == ["one", "two"]
    assert body(status_response(500, "InternalError", "no lines", []))["details"] == []
