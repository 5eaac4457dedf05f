"""A sidecar's own entries: settings, ports, access and limits; and the warnings about bad objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import Object
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.compile.check import check
from nginx_mesh.compile.engine import compile_state
from nginx_mesh.protocol.state import Grant, Inbound, Limit, PathRule, Probe, Settings, State

from .compiled import catalog_of
from .objects import group, http, limit, pod, pod_key, port, service, target, tcp, tcp_route

WEB = {"app": "web"}
CLIENT = "spiffe://example.org/ns/default/sa/client"
DENY = MeshSettings(access_control_mode="deny")
SERVICE = service("web", port(80, target=8080))
TCP_SERVICE = service("web", port(80, "tcp", target=8080))
GET = group("routes", {"name": "get", "methods": ["GET"]}, {"name": "any", "pathRegex": "*", "methods": ["*"]})


def state_of(*objects: Object, settings: MeshSettings | None = None, name: str = "web-0") -> State:
    state = compile_state(catalog_of(*objects), settings or MeshSettings(), pod_key(name))
    assert state is not None
    return state


def inbound(*objects: Object, settings: MeshSettings | None = None, number: int = 8080) -> Inbound:
    entry = state_of(*objects, settings=settings)[f"inbound/{number}"]
    assert isinstance(entry, Inbound)
    return entry


def web(**facts: Any) -> Object:
    return pod("web-0", **{"labels": WEB, "account": "web", **facts})


def complaints(*objects: Object) -> list[str]:
    catalog = catalog_of(*objects)
    return [str(warning) for obj in objects for warning in check(catalog, obj.key)]


def test_a_pod_that_is_not_meshed_has_no_state() -> None:
    assert compile_state(catalog_of(web(meshed=False)), MeshSettings(), pod_key("web-0")) is None


def test_settings_are_those_of_the_mesh_unless_the_pods_annotations_override_them() -> None:
    state = state_of(
        web(
            ips=["10.0.0.1", "fd00::1"],
            labels={**WEB, "nsm.nginx.com/deployment": "web", "pod-template-hash": "5d4"},
            annotations={"config.nsm.nginx.com/client-max-body-size": "2k"},
        ),
        settings=MeshSettings(error_log_level="debug", log_format="json"),
    )
    assert state["settings"] == Settings(
        mtls_mode="permissive",
        trust_domain="example.org",
        client_max_body_size=2048,
        log_level="debug",
        log_format="json",
        addresses=["10.0.0.1", "fd00::1"],
        labels={"pod": "web-0", "namespace": "default", "deployment": "web", "pod_template_hash": "5d4"},
    )


@pytest.mark.parametrize(
    ("mesh", "own", "effective"),
    [
        ("permissive", None, "permissive"),
        ("permissive", "off", "off"),
        ("permissive", "strict", "strict"),
        ("off", "permissive", "permissive"),
        ("strict", "off", "strict"),
        ("permissive", "sometimes", "permissive"),
    ],
)
def test_a_pods_own_mode_applies_unless_the_mesh_is_strict(mesh: Any, own: str | None, effective: str) -> None:
    annotations = {} if own is None else {"config.nsm.nginx.com/mtls-mode": own}
    entry = state_of(web(annotations=annotations), settings=MeshSettings(mtls_mode=mesh))["settings"]
    assert isinstance(entry, Settings)
    assert entry.mtls_mode == effective


def test_only_declared_ports_have_inbound_entries() -> None:
    state = state_of(SERVICE, service("x", port(81, target=7000), selector=WEB, vips=["10.96.0.2"]), web())
    assert [key for key in state if key.startswith("inbound/")] == ["inbound/8080"]


@pytest.mark.parametrize(
    ("services", "name", "protocols"),
    [
        ([], "", ["tcp"]),
        ([], "http-web", ["http"]),
        ([], "grpc", ["grpc"]),
        ([SERVICE], "grpc", ["http"]),
        ([SERVICE, service("raw", port(81, target=8080), selector=WEB)], "", ["http", "tcp"]),
        ([service("web", port(80, "tcp", target=8080, app_protocol="grpc"))], "", ["grpc"]),
    ],
)
def test_a_ports_protocols_are_those_of_its_services_or_its_own(
    services: list[Object], name: str, protocols: list[str]
) -> None:
    assert inbound(*services, web(ports=[(8080, name)])).protocols == protocols


def test_port_80_of_a_pod_is_http() -> None:
    assert inbound(web(ports=[(80, "")]), number=80).protocols == ["http"]


def test_without_a_traffic_target_the_access_mode_decides() -> None:
    assert inbound(web()).grants is None
    assert inbound(web(), settings=DENY).grants == []


def test_a_traffic_target_grants_its_matches_in_their_order() -> None:
    objects = (SERVICE, web(), GET, target("t", "web", ["client"], http("routes", "any", "get")))
    expected = [Grant(target="default/t", sources=[CLIENT], matches=[PathRule(), PathRule(methods=["GET"])])]
    assert inbound(*objects).grants == expected
    assert inbound(*objects, settings=DENY).grants == expected


def test_header_names_are_lower_case() -> None:
    routes = group("routes", {"name": "x", "pathRegex": "/x", "headers": {"X-Demo": "^1$"}})
    granted = inbound(SERVICE, web(), routes, target("t", "web", ["client"], http("routes"))).grants
    assert granted is not None
    assert granted[0].matches == [PathRule(path_regex="/x", headers={"x-demo": "^1$"})]


def test_a_traffic_target_without_rules_grants_everything_to_its_sources() -> None:
    for reached_by in (SERVICE, TCP_SERVICE):
        granted = inbound(reached_by, web(), target("t", "web", ["client"])).grants
        assert granted == [Grant(target="default/t", sources=[CLIENT])]


def test_the_port_of_a_traffic_target_restricts_it_to_that_port() -> None:
    objects = (web(ports=[(8080, "http"), (9090, "http")]), target("t", "web", ["client"], port=8080))
    assert inbound(*objects, number=8080).grants == [Grant(target="default/t", sources=[CLIENT])]
    assert inbound(*objects, number=9090).grants is None
    assert inbound(*objects, number=9090, settings=DENY).grants == []


def test_a_traffic_target_for_another_account_or_namespace_does_not_apply() -> None:
    assert inbound(web(), target("t", "db", ["client"])).grants is None
    assert inbound(web(), target("t", "web", ["client"], namespace="prod")).grants is None


@pytest.mark.parametrize(
    ("reached_by", "rules", "objects"),
    [
        (SERVICE, [http("routes")], []),
        (SERVICE, [http("routes", "nonsense")], [GET]),
        (SERVICE, [http("routes")], [group("routes")]),
        (SERVICE, [http("routes")], [group("routes", {"name": "x", "headers": {"a": "1", "A": "2"}})]),
        (SERVICE, [http("routes")], [group("routes", {"name": "x"}, namespace="prod")]),
        (SERVICE, [tcp("route")], [tcp_route("route")]),
        (TCP_SERVICE, [tcp("route")], []),
        (TCP_SERVICE, [http("routes")], [GET]),
    ],
)
def test_rules_that_do_not_apply_or_do_not_resolve_grant_nothing(
    reached_by: Object, rules: list[Any], objects: list[Object]
) -> None:
    assert inbound(reached_by, web(), target("t", "web", ["client"], *rules), *objects).grants == []


def test_without_valid_sources_nothing_is_granted() -> None:
    assert inbound(web(), target("t", "web", [])).grants == []
    assert inbound(web(), target("t", "web", ["../client"])).grants == []


def test_a_tcp_route_grants_tcp_and_http_routes_http_where_services_disagree_too() -> None:
    objects = (web(), tcp_route("route"), GET, target("t", "web", ["client"], tcp("route"), http("routes", "get")))
    connections = Grant(target="default/t", sources=[CLIENT], tcp=True)
    requests = Grant(target="default/t", sources=[CLIENT], matches=[PathRule(methods=["GET"])])
    assert inbound(TCP_SERVICE, *objects).grants == [connections]
    assert inbound(SERVICE, *objects).grants == [requests]
    both = (SERVICE, service("raw", port(81, target=8080), selector=WEB))
    assert inbound(*both, *objects).grants == [requests, connections]


WORKLOADS = ("Service", "Deployment", "DaemonSet", "StatefulSet", "Pod")


def workload_labels(kind: str, name: str) -> dict[str, str]:
    """Labels of a pod of a workload of this kind, which the Service of the same name selects."""
    owner = {} if kind in ("Service", "Pod") else {f"nsm.nginx.com/{kind.lower()}": name}
    return {"app": name, **owner}


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_limit_reaches_the_pods_of_its_destination_and_no_others(kind: str) -> None:
    one, other = (web(labels=workload_labels(kind, name), ports=[(8080, "http")]) for name in ("web", "other"))
    destination = (kind, "web-0" if kind == "Pod" else "web")
    rated = limit("l", destination, "30r/m", http("routes", "get"), burst=3, delay="nodelay")
    expected = [Limit(name="default/l", rate=500, burst=3, delay=-1, matches=[PathRule(methods=["GET"])])]
    assert inbound(SERVICE, one, GET, rated).limits == expected
    assert inbound(SERVICE, other, GET, rated).limits == (expected if kind == "Pod" else [])


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_source_of_any_kind_is_resolved_to_its_pods(kind: str) -> None:
    def caller(name: str, number: int, workload: str) -> Object:
        return pod(name, ips=[f"10.0.0.{number}"], account="shared", labels=workload_labels(kind, workload))

    source = "c-0" if kind == "Pod" else "c"
    callers = [caller("c-0", 2, "c"), caller("c-1", 3, "c"), caller("d-0", 4, "d")]
    rated = limit("l", ("Service", "web"), "9r/s", sources=[(kind, source), ("Pod", "d-0"), ("Pod", "absent")])
    found = inbound(SERVICE, web(), *callers, service("c", port(80), vips=["10.96.0.2"]), rated).limits
    own = ["10.0.0.2"] if kind == "Pod" else ["10.0.0.2", "10.0.0.3"]
    assert [(limit.addresses, limit.rate) for limit in found] == [(own, 3000), (["10.0.0.4"], 3000)]
    assert {tuple(limit.sources) for limit in found} == {("spiffe://example.org/ns/default/sa/shared",)}


def test_a_rate_is_divided_among_sources_that_are_recognised_by_accounts_and_addresses_of_pods() -> None:
    entry = inbound(
        SERVICE,
        web(),
        pod("one", labels={"app": "clients"}, ips=["10.0.0.2"], account="client"),
        pod("two", labels={"nsm.nginx.com/deployment": "batch"}, ips=["10.0.0.3", "fd00::3"], account="batch"),
        service("clients", port(80), vips=["10.96.0.2"]),
        limit(
            "l",
            ("Service", "web"),
            "10r/s",
            sources=[("Service", "clients"), ("Deployment", "batch"), ("Deployment", "absent")],
        ),
    )
    assert entry.limits == [
        Limit(name="default/l/Service/default/clients", rate=3333, sources=[CLIENT], addresses=["10.0.0.2"]),
        Limit(
            name="default/l/Deployment/default/batch",
            rate=3333,
            sources=["spiffe://example.org/ns/default/sa/batch"],
            addresses=["10.0.0.3", "fd00::3"],
        ),
    ]


def test_the_older_of_two_limits_for_a_source_applies_and_the_younger_is_reported() -> None:
    client = pod("one", ips=["10.0.0.2"], account="client")
    young = limit("a", ("Service", "web"), "1r/s", sources=[("Pod", "one")], created="2024-01-02T00:00:00Z")
    old = limit("b", ("Service", "web"), "2r/s", sources=[("Pod", "one")], created="2024-01-01T00:00:00Z")
    assert [found.rate for found in inbound(SERVICE, web(), client, young, old).limits] == [2000]
    assert complaints(SERVICE, client, young, old) == [
        "RateLimit default/a: spec.sources: RateLimit default/b limits Pod default/one at Service default/web already"
    ]


def test_tcp_ports_have_no_limits() -> None:
    assert inbound(TCP_SERVICE, web(), limit("l", ("Service", "web"), "1r/s")).limits == []


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (
            service("web", port(80), annotations={"config.nsm.nginx.com/lb-method": "best"}),
            "Service default/web: metadata.annotations[config.nsm.nginx.com/lb-method]: ",
        ),
        (
            web(annotations={"config.nsm.nginx.com/mtls-mode": "sometimes"}),
            "Pod default/web-0: metadata.annotations[config.nsm.nginx.com/mtls-mode]: ",
        ),
        (target("t", "web", ["client"], http("routes")), "TrafficTarget default/t: spec.rules[0].name: "),
        (target("t", "web", []), "TrafficTarget default/t: spec.sources: "),
        (limit("l", ("Service", "web"), "often"), "RateLimit default/l: spec.rate: "),
        (limit("l", ("Service", "web"), "1r/s", delay="later"), "RateLimit default/l: spec.delay: "),
        (limit("l", ("Service", "web"), "1r/s", http("routes")), "RateLimit default/l: spec.rules[0].name: "),
    ],
)
def test_parts_without_effect_are_reported_with_object_field_and_reason(bad: Object, complaint: str) -> None:
    found = complaints(bad)
    assert [text.startswith(complaint) and len(text) > len(complaint) for text in found] == [True]


def test_an_expression_that_sidecars_cannot_use_is_reported_at_every_policy_that_names_it() -> None:
    """Such an expression passed validation by another version of PCRE2, or is older than the mesh."""
    bad = group("routes", {"name": "path", "pathRegex": "^/a["}, {"name": "header", "headers": {"X-A": "(b"}})
    objects = (SERVICE, web(), bad)
    for named, count in ((["path"], 1), (["header"], 1), ([], 2)):
        rules = http("routes", *named)
        found = complaints(*objects, target("t", "web", ["c"], rules), limit("l", ("Service", "web"), "1r/s", rules))
        assert len(found) == 2 * count
        assert all(
            ": spec.rules[0].matches: match " in text and "is not a regular expression" in text for text in found
        )


def test_sound_objects_have_no_warnings() -> None:
    assert complaints(SERVICE, web(), GET, target("t", "web", ["c"], http("routes", "get"))) == []


def test_numbers_that_sidecars_cannot_count_to_are_reduced() -> None:
    huge = limit("l", ("Service", "web"), "1r/s", burst=1 << 40, delay=1 << 40)
    state = state_of(SERVICE, web(annotations={"config.nsm.nginx.com/client-max-body-size": "8000000000g"}), huge)
    settings, entry = state["settings"], state["inbound/8080"]
    assert isinstance(settings, Settings)
    assert settings.client_max_body_size == (1 << 53) - 1
    assert isinstance(entry, Inbound)
    assert [(found.burst, found.delay) for found in entry.limits] == [((1 << 31) - 1, (1 << 31) - 1)]


def test_health_checks_are_read_from_the_annotation_of_the_injector() -> None:
    def read(annotations: Mapping[str, str]) -> Mapping[str, Probe]:
        if "bad" in annotations["injector.nsm.nginx.com/probes"]:
            raise FieldError("injector.nsm.nginx.com/probes", "is not JSON")
        return {"/health-redirects/app/live": Probe(scheme="http", port=8080, path="/live")}

    for noted, expected in (
        ("some", {"probe//health-redirects/app/live": Probe(scheme="http", port=8080, path="/live")}),
        ("bad", {}),
    ):
        catalog = catalog_of(web(annotations={"injector.nsm.nginx.com/probes": noted}))
        state = compile_state(catalog, MeshSettings(), pod_key("web-0"), read)
        assert state is not None
        assert {key: entry for key, entry in state.items() if key.startswith("probe/")} == expected
        assert "inbound/8080" in state
