"""Admission and compiler report a missing object with the same text, or else there would be two events about it."""

from __future__ import annotations

import pytest

from nginx_mesh.admission.references import missing
from nginx_mesh.api.meta import Object
from nginx_mesh.compile.check import check

from .compiled import catalog_of
from .objects import breaker, group, http, limit, port, service, split, target

WEB, ROUTES = service("web", port(80)), group("routes", {"name": "get", "methods": ["GET"]})


@pytest.mark.parametrize(
    ("policy", "common"),
    [
        (split("s", "none", {"one": 1}, "gone"), 2 + 1),
        (split("s", "web", {"one": 1, "two": 2}), 2),
        (breaker("b", "none"), 1),
        (breaker("b", "web", fallback="default/none"), 1),
        (breaker("b", "web", fallback="default/spare", fallback_port=81), 1),
        (limit("l", ("Service", "none"), "1r/s", http("gone"), http("routes", "put")), 2),
        (target("t", "web", ["client"], http("gone"), http("routes", "put")), 2),
    ],
)
def test_admission_and_compiler_report_missing_objects_with_the_same_text(policy: Object, common: int) -> None:
    objects = [policy, WEB, service("spare", port(80), vips=["10.96.0.2"]), ROUTES]
    stored = {(fault.field, fault.reason) for fault in missing(policy, {obj.key: obj for obj in objects}.get)}
    compiled = {(warning.field, warning.reason) for warning in check(catalog_of(*objects), policy.key)}
    assert len(stored & compiled) == common
    assert not {field for field, _ in stored - compiled} & {field for field, _ in compiled}
