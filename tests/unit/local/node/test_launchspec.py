"""What the launcher is told, and which fields of a pod are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.containers import Container
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.local.node.launchspec import LaunchSpec, NodeFacts, expand, launch_spec
from nginx_mesh.local.node.volumes import ConfigError, MountedVolume
from nginx_mesh.local.paths import MeshPaths

PATHS = MeshPaths("test", Path("/mesh-root"))
NODE = NodeFacts(name="n1", cluster_domain="cluster.local", images={"nginx-mesh/sidecar": Path("/images/sidecar")})
VOLUMES = {
    "data": MountedVolume(Path("/volumes/data"), read_only=False),
    "conf": MountedVolume(Path("/volumes/c"), True),
}


def nothing(_: ObjectKey) -> Object | None:
    return None


def spec_of(container: dict[str, Any], **pod_spec: Any) -> LaunchSpec:
    container = {"name": "app", "command": ["run"], **container}
    pod = msgspec.convert(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"a/b": "c"}},
            "spec": {"containers": [container], **pod_spec},
            "status": {"podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00:10:244::5"}]},
        },
        Pod,
    )
    return launch_spec(
        pod,
        msgspec.convert(container, Container),
        "spec.containers[0]",
        node=NODE,
        paths=PATHS,
        volumes=VOLUMES,
        lookup=nothing,
    )


def test_an_ordinary_image_runs_on_the_hosts_root_with_what_is_private_masked() -> None:
    spec = spec_of({"image": "python:3"})
    assert (spec.image, spec.host_root, spec.uid, spec.gid) == ("/", True, 65534, 65534)
    assert {"/root", "/run", "/tmp", "/var/lib/nginx-mesh", "/mesh-root/run/nginx-mesh"} <= spec.masks.keys()  # noqa: S108
    assert spec.binds[0].target == "/opt/nginx-mesh/venv" and spec.binds[0].read_only


def test_an_image_of_the_mesh_runs_on_its_own_root() -> None:
    spec = spec_of({"image": "nginx-mesh/sidecar:0.1"})
    assert (spec.image, spec.host_root, spec.masks, spec.binds) == ("/images/sidecar", False, {}, [])


def test_names_and_resolver_of_a_pod() -> None:
    spec = spec_of({}, hostname="db-0", subdomain="db")
    assert spec.hostname == spec.env["HOSTNAME"] == "db-0"
    assert "10.244.0.5\tdb-0.db.ns.svc.cluster.local db-0\n" in spec.files["/etc/hosts"]
    expected = "search ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    assert spec.files["/etc/resolv.conf"].endswith(expected)


@pytest.mark.parametrize(
    ("pod", "container", "ids"),
    [
        ({}, {"runAsUser": 1000}, (1000, 65534)),
        ({"runAsUser": 1000, "runAsGroup": 2000}, {}, (1000, 2000)),
        ({"runAsUser": 1000}, {"runAsUser": 0}, (0, 0)),
        ({}, {"runAsGroup": 5}, (65534, 5)),
    ],
)
def test_the_containers_security_context_wins_over_the_pods(
    pod: dict[str, int], container: dict[str, int], ids: tuple[int, int]
) -> None:
    spec = spec_of({"securityContext": container}, securityContext=pod)
    assert (spec.uid, spec.gid) == ids


@pytest.mark.parametrize(
    ("container", "field"),
    [
        ({"command": []}, "spec.containers[0].command"),
        ({"command": ["a\0b"]}, "spec.containers[0].command"),
        ({"env": [{"name": "A=B"}]}, "spec.containers[0].env[0].name"),
        ({"env": [{"name": "A", "value": "\0"}]}, "spec.containers[0].env[0]"),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "spec.containers[0].env[0].valueFrom"),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]},
            "spec.containers[0].env[0].valueFrom: must be one of fieldRef",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.secrets"}}}]},
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            "spec.containers[0].env[0].valueFrom: Secret ns/s",
        ),
        ({"envFrom": [{"configMapRef": {"name": "c"}}]}, "spec.containers[0].envFrom[0]: ConfigMap ns/c"),
        ({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}, "spec.containers[0].volumeMounts[0].name"),
        ({"volumeMounts": [{"name": "data", "mountPath": "x"}]}, "spec.containers[0].volumeMounts[0].mountPath"),
        ({"volumeMounts": [{"name": "data", "mountPath": "/"}]}, "spec.containers[0].volumeMounts[0].mountPath"),
        ({"volumeMounts": [{"name": "data", "mountPath": "/a/../b"}]}, "spec.containers[0].volumeMounts[0].mountPath"),
        (
            {"volumeMounts": [{"name": "data", "mountPath": "/a", "subPath": "../b"}]},
            "spec.containers[0].volumeMounts[0].subPath",
        ),
        ({"securityContext": {"privileged": True}}, "spec.containers[0].securityContext.privileged"),
        ({"securityContext": {"runAsUser": -1}}, "spec.containers[0].securityContext.runAsUser"),
        (
            {"securityContext": {"runAsUser": 0, "runAsNonRoot": True}},
            "spec.containers[0].securityContext.runAsNonRoot",
        ),
        (
            {"securityContext": {"capabilities": {"add": ["CAP_SYS_ADMIN"]}}},
            "spec.containers[0].securityContext.capabilities.add: 'SYS_ADMIN'",
        ),
    ],
)
def test_a_fault_names_its_field(container: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_of(container)
    assert str(caught.value).startswith(field)


def test_optional_references_may_be_missing() -> None:
    variable = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": True}}}
    spec = spec_of({"env": [variable], "envFrom": [{"secretRef": {"name": "s", "optional": True}}]})
    assert spec.env.keys() == {"PATH", "HOSTNAME"}


def test_what_is_read_only_as_a_volume_stays_so_as_a_mount() -> None:
    mounts = [{"name": "data", "mountPath": "/d"}, {"name": "conf", "mountPath": "/c/", "subPath": "x/y"}]
    data, conf = spec_of({"volumeMounts": mounts}).binds[-2:]
    assert not data.read_only
    assert (conf.read_only, conf.target, conf.sub_path) == (True, "/c", "x/y")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
        ("$A $", "$A $"),
        ("$($(A))", "$($(A))"),
        ("$()", "$()"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@given(st.text(alphabet="$()AB x"))
def test_expansion_is_done_once_and_text_without_dollars_is_left_alone(text: str) -> None:
    assert expand(text.replace("$", ""), {"A": "$(A)"}) == text.replace("$", "")
    escaped = text.replace("$", "$$")
    assert expand(escaped, {"A": "1", "B": "2"}) == text
