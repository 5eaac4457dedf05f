"""TrafficSplits are compiled to entries of the state."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.compile.check import check
from nginx_mesh.protocol.state import Cluster, Destination, PathRule, Split, SplitBackend, State

from .compiled import catalog_of, compiled, problems
from .objects import group, pod, port, service, slice_, split

ROOT = service("web", port(80))
BACKENDS = (service("one", port(80), vips=["10.96.0.2"]), service("two", port(80), vips=["10.96.0.3"]))
KEY = "split/default/web:80"
NINE_TO_ONE = {"one": 9, "two": 1}


def backends(state: State, key: str = KEY) -> dict[str, int]:
    entry = state[key]
    assert isinstance(entry, Split)
    return {backend.cluster: backend.weight for backend in entry.backends}


def test_a_split_is_an_entry_of_each_port_of_its_root() -> None:
    state = compiled(service("web", port(80), port(81, "more")), *BACKENDS, split("s", "web", NINE_TO_ONE))
    shares = [SplitBackend(cluster="default/one:80", weight=9), SplitBackend(cluster="default/two:80", weight=1)]
    assert state[KEY] == Split(split="default/s", backends=shares)
    assert state["split/default/web:81"] == state[KEY], "the only port of a backend stands for any of the root"


@pytest.mark.parametrize(
    ("ports", "cluster"),
    [
        ((port(80, "other"), port(8080, "http")), "default/one:80"),
        ((port(8080, "http"), port(9090, "other")), "default/one:8080"),
        ((port(9090, "other"),), "default/one:9090"),
        ((port(8080, "tcp-a"), port(9090, "tcp-b")), None),
    ],
)
def test_a_backends_port_is_chosen_by_number_then_by_name_then_as_the_only_one(
    ports: tuple[dict[str, object], ...], cluster: str | None
) -> None:
    state = compiled(
        service("web", port(80, "http")), service("one", *ports), BACKENDS[1], split("s", "web", NINE_TO_ONE)
    )
    assert list(backends(state)) == ([cluster] if cluster else []) + ["default/two:80"]


def test_matches_are_those_of_all_groups_in_their_order() -> None:
    state = compiled(
        ROOT,
        *BACKENDS,
        group("b", {"name": "x", "pathRegex": "/x"}),
        group("a", {"name": "y", "headers": {"X-Canary": "yes"}}, {"name": "z", "methods": ["GET"]}),
        split("s", "web", NINE_TO_ONE, "b", "a", "missing"),
    )
    entry = state[KEY]
    assert isinstance(entry, Split)
    rules = [PathRule(path_regex="/x"), PathRule(headers={"x-canary": "yes"}), PathRule(methods=["GET"])]
    assert entry.matches == rules


@pytest.mark.parametrize("groups", [(), (group("g"),), (group("g", {"name": "a", "headers": {"A": "1", "a": "2"}}),)])
def test_a_split_whose_matches_cannot_be_resolved_has_no_entry(groups: tuple[Object, ...]) -> None:
    """A split without matches applies to all requests, this one to none."""
    policy = split("s", "web", NINE_TO_ONE, "g")
    assert KEY not in compiled(ROOT, *BACKENDS, *groups, policy)
    assert any("match nothing" in problem for problem in problems(policy, ROOT, *BACKENDS, *groups))


def test_the_oldest_split_of_a_root_applies_then_the_first_by_name() -> None:
    first, second, third = (
        split(name, "web", {backend: 1}, created=f"2024-01-0{day}")
        for name, backend, day in (("z", "one", 1), ("a", "two", 2), ("b", "one", 2))
    )
    assert list(backends(compiled(third, second, first, ROOT, *BACKENDS))) == ["default/one:80"]
    assert list(backends(compiled(third, second, ROOT, *BACKENDS))) == ["default/two:80"]
    catalog = catalog_of(third, second, first, ROOT, *BACKENDS)
    assert not check(catalog, first.key)
    assert all("TrafficSplit default/z splits" in str(check(catalog, policy.key)) for policy in (second, third))


def test_weights_outside_of_the_range_of_sidecars_are_limited() -> None:
    policy = split("s", "web", {"one": -1, "two": 1 << 40})
    assert backends(compiled(ROOT, *BACKENDS, policy)) == {"default/one:80": 0, "default/two:80": (1 << 31) - 1}
    assert problems(policy, ROOT, *BACKENDS) == ["spec.backends[0].weight is negative, and counts as 0"]


def test_a_headless_root_is_split_at_the_addresses_of_its_pods() -> None:
    objects = (
        service("web", port(80, target=8080), vips=[]),
        # also behind every pod, and first by name
        service("all", port(8080), vips=[], selector={"app": "web"}),
        *BACKENDS,
        pod("web-0", labels={"app": "web"}),
    )
    plain = compiled(*objects)["destination/10.0.0.1:8080"]
    assert plain == Destination(protocol="tcp", cluster="10.0.0.1:8080")
    state = compiled(*objects, split("s", "web", NINE_TO_ONE))
    assert state["destination/10.0.0.1:8080"] == Destination(
        protocol="tcp", cluster="10.0.0.1:8080", service="default/web:80"
    )
    assert KEY in state


def test_a_headless_remote_root_is_split_at_its_endpoints_addresses() -> None:
    peer = {"config.nsm.nginx.com/peer-spiffe-id": "spiffe://other.example/x"}
    far = service("web", port(80, "http"), vips=[], selector={}, annotations=peer)
    state = compiled(
        far, slice_("1", "web", {"10.1.0.1": True}, {"http": 8080}), *BACKENDS, split("s", "web", {"one": 1})
    )
    destination = state["destination/10.1.0.1:8080"]
    assert isinstance(destination, Destination)
    assert destination.service == "default/web:80"


@pytest.mark.parametrize(
    ("families", "address"), [([], "10.0.0.1"), (["IPv6"], "fd00::1"), (["IPv6", "IPv4"], "fd00::1")]
)
def test_a_headless_service_has_a_cluster_when_it_is_a_backend(families: list[str], address: str) -> None:
    headless = service("one", port(80), vips=[])
    headless = replace(headless, spec=replace(headless.spec, ip_families=families))
    objects = (ROOT, headless, pod("one-0", labels={"app": "one"}, ips=["10.0.0.1", "fd00::1"], ports=[(80, "")]))
    assert "cluster/default/one:80" not in compiled(*objects)
    cluster = compiled(*objects, split("s", "web", {"one": 1}))["cluster/default/one:80"]
    assert isinstance(cluster, Cluster)
    assert [where.rpartition(":")[0].strip("[]") for where in cluster.endpoints] == [address]


def test_a_sound_split_has_no_warnings() -> None:
    assert problems(split("s", "web", NINE_TO_ONE), ROOT, *BACKENDS) == []


@pytest.mark.parametrize(
    ("policy", "objects", "problem"),
    [
        (split("s", "web", {"one": 1}), BACKENDS, "spec.service there is no Service default/web in the mesh"),
        (split("s", "web", {"no": 1}), (ROOT,), "spec.backends[0].service there is no Service default/no in the mesh"),
        (split("s", "web", {"one": 0}), (ROOT, *BACKENDS), "spec.backends no weight is above 0"),
        (split("s", "web", {}), (ROOT,), "spec.backends no weight is above 0"),
        (
            split("s", "web", {"one": 1}),
            (ROOT, service("one", port(81), port(82))),
            "spec.backends[0].service Service default/one has no port for 80 of Service default/web",
        ),
        (
            split("s", "web", {"one": 1}),
            (ROOT, service("one", port(81, "tcp"))),
            "spec.backends[0].service port 81 of Service default/one is tcp, port 80 of Service default/web is http",
        ),
        (
            split("s", "web", {"one": 1}, "g"),
            (service("web", port(25)), service("one", port(25)), group("g", {"name": "x", "methods": ["GET"]})),
            "spec.matches port 25 of Service default/web is TCP, where nothing matches",
        ),
        (split("s", "web", {"one": 1}, "g"), (ROOT, *BACKENDS), "spec.matches[0].name there is no HTTPRouteGroup"),
    ],
)
def test_parts_of_splits_without_effect_are_reported(policy: Object, objects: tuple[Object, ...], problem: str) -> None:
    assert any(found.startswith(problem) for found in problems(policy, *objects)), problems(policy, *objects)


def test_an_object_that_does_not_exist_has_no_warnings() -> None:
    assert check(catalog_of(split("s", "web", {})), ObjectKey("TrafficSplit", "other", "s")) == ()
