"""Many policies: what is measured, and what is said of it."""

from __future__ import annotations

import datetime
import re
from collections import Counter

import pytest

from bench import certs, policies
from bench.app import path
from bench.load import Load
from bench.objects import states
from bench.policies import ONE, PILED, SETS, SPREAD
from bench.stats import HEADLINE, Memory, Sample
from nginx_mesh.protocol.state import Grant, Inbound, Limit

ISSUED = certs.issue(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))


def called(kind: str) -> Inbound:
    """The port of the server."""
    found = states(policies.mesh(kind), ISSUED).server["inbound/8080"]
    assert isinstance(found, Inbound)
    return found


def matches(rule: Grant | Limit) -> bool:
    return any(re.search(match.path_regex, path("1k")) for match in rule.matches)


@pytest.mark.parametrize(("kind", "targets", "groups", "limits"), [(ONE, 1, 1, 1), (SPREAD, 1000, 200, 200)])
def test_the_sets_have_as_many_policies_as_they_say(kind: str, targets: int, groups: int, limits: int) -> None:
    kinds = Counter(obj.KIND for obj in policies.mesh(kind))
    assert (kinds["TrafficTarget"], kinds["HTTPRouteGroup"], kinds["RateLimit"]) == (targets, groups, limits)
    assert kinds["Service"] == 300


@pytest.mark.parametrize(("kind", "grants", "limits"), [(ONE, 1, 1), (SPREAD, 4, 1), (PILED, 1000, 200)])
def test_what_decides_on_the_requests_that_are_measured_is_the_youngest(kind: str, grants: int, limits: int) -> None:
    port, client = called(kind), ISSUED.client.spiffe_id
    assert port.grants is not None
    assert (len(port.grants), len(port.limits)) == (grants, limits)
    for rules in (port.grants, port.limits):
        ours = [rule for rule in rules if client in rule.sources]
        assert [rule for rule in ours if matches(rule)] == [ours[-1]] == [rules[-1]]
    assert len([grant for grant in port.grants if client in grant.sources]) == (1 if kind == ONE else 4)


def test_the_last_line_compares_with_one_policy_of_each_kind() -> None:
    load = Load(requests=1, duration_us=1, bytes=1, p50_us=1, p90_us=1, p99_us=1, errors=0)
    cost = {ONE: 50.0, SPREAD: 51.0, PILED: 55.0}
    samples = [
        Sample(kind, HEADLINE, round_, load, cost[kind] * slow) for round_, slow in ((1, 1), (2, 3)) for kind in SETS
    ]
    memory = [Memory(kind, HEADLINE, int(1000 * cost[kind])) for kind in SETS]
    assert policies.headline(samples, memory) == {
        "cpu_spread_vs_one": 1.02,
        "cpu_piled_vs_one": 1.1,
        "pss_spread_vs_one": 1.02,
        "pss_piled_vs_one": 1.1,
    }
    columns = [list(column.cells) for column in policies.table(samples, memory).columns]
    assert columns[4] == ["", "1.020", "1.100"]
    assert policies.headline(samples, [])["pss_piled_vs_one"] is None
