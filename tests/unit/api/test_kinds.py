from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.kinds import KINDS, as_stored, by_kind, decode, lookup, to_dict
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.api.workloads import Deployment


@pytest.mark.parametrize("name", ["po", "pod", "pods", "Pods", "POD"])
def test_kinds_are_found_by_the_names_kubectl_knows(name: str) -> None:
    assert lookup(name) is Pod


def test_kinds_are_found_by_group() -> None:
    assert lookup("deployments.apps") is Deployment
    assert lookup("trafficsplits.split.smi-spec.io") is TrafficSplit
    assert lookup("ts") is TrafficSplit
    assert lookup("gateways") is None
    assert by_kind("Service") is Service


def test_names_of_kinds_do_not_clash() -> None:
    for type_ in set(KINDS.values()):
        assert lookup(type_.KIND) is type_
        assert lookup(type_.PLURAL) is type_


def test_an_object_survives_being_written() -> None:
    raw = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"a/b": "c"}},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}], "selector": {"app": "web"}, "clusterIP": "None"},
    }
    assert to_dict(decode(raw)) == raw


def rate_limit(version: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"specs.smi.nginx.com/{version}",
        "kind": "RateLimit",
        "metadata": {"name": "limit"},
        "spec": {"destination": {"kind": "Service", "name": "web"}, "name": "10rs", "rate": "10r/s", **spec},
    }


def test_both_versions_of_rate_limit_are_one_type() -> None:
    assert decode(rate_limit("v1alpha1")) == decode(rate_limit("v1alpha2"))
    assert isinstance(decode(rate_limit("v1alpha1", delay="nodelay")), RateLimit)


def test_what_comes_in_the_first_version_of_rate_limit_is_stored_in_the_second() -> None:
    assert as_stored(rate_limit("v1alpha1")) == as_stored(rate_limit("v1alpha2")) == rate_limit("v1alpha2")


def test_the_first_version_of_rate_limit_has_no_rules() -> None:
    rules = [{"kind": "HTTPRouteGroup", "name": "routes"}]
    decode(rate_limit("v1alpha2", rules=rules))
    with pytest.raises(FieldError, match=r"spec\.rules: unknown field"):
        decode(rate_limit("v1alpha1", rules=rules))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"apiVersion": None}, "apiVersion: is required"),
        ({"kind": 5}, "kind: must be a string"),
        ({"kind": "Ingress"}, 'kind: unknown kind "Ingress" of apiVersion "v1"'),
        ({"apiVersion": "v2"}, 'apiVersion: "v2" has no Service; it is in v1'),
        ({"metadata": None}, "metadata: is required"),
        ({"spec": []}, "spec: must be a mapping, not a list"),
        ({"spec": {"ports": [{"port": "80"}]}}, "spec.ports[0].port: must be an integer, not a string"),
        ({"spec": {"ports": [{}]}}, "spec.ports[0].port: is required"),
        (
            {"spec": {"ports": [{"port": 1, "targetPort": True}]}},
            "spec.ports[0].targetPort: must be an integer or a string",
        ),
        (
            {"metadata": {"name": "a", "labels": {"ok": "x", "a/b": 1}}},
            "metadata.labels[a/b]: must be a string, not an integer; put the value in quotes",
        ),
        (
            {"spec": {"selector": {"version": 1.0}}},
            "spec.selector.version: must be a string, not a number; put the value",
        ),
    ],
)
def test_a_wrong_type_is_named_by_its_path(change: dict[str, Any], error: str) -> None:
    raw = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}
    with pytest.raises(FieldError) as caught:
        decode({**raw, **change})
    assert error in str(caught.value)


MESH_CONFIG = {"apiVersion": "nsm.nginx.com/v1alpha2", "kind": "MeshConfig", "metadata": {"name": "a"}}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"spec": {"meshConfigClassName": "x", "mtls": {"mode": False}}}, "spec.mtls.mode: must be a string"),
        ({"spec": {"meshConfigClassName": "x", "mtls": {"mode": "on"}}}, '"on" is not one of off, permissive, strict'),
        (
            {"spec": {"meshConfigClassName": "x", "mtls": {"mods": "off"}}},
            "spec.mtls.mods: unknown field; known are mode, caTTL, svidTTL, caKeyType",
        ),
        ({"spec": {}}, "spec.meshConfigClassName: is required"),
        ({"spec": {"meshConfigClassName": "x"}, "data": {}}, "data: unknown field"),
    ],
)
def test_the_meshs_own_resources_refuse_what_they_do_not_know(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode({**MESH_CONFIG, **fields})
    assert error in str(caught.value)


def test_null_is_the_same_as_absent() -> None:
    raw = {**MESH_CONFIG, "spec": {"meshConfigClassName": "x", "mtls": None}, "status": None}
    assert decode(raw) == decode({**MESH_CONFIG, "spec": {"meshConfigClassName": "x"}})
    service = decode({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": None}, "spec": {}})
    assert service.metadata.labels == {}
