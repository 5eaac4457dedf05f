"""Objects of a real API server: each decodes, keeps what the mesh acts on, and when damaged says where."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.decoding import without_nulls
from nginx_mesh.api.errors import FieldError, join, step
from nginx_mesh.api.kinds import CLUSTER_KINDS, KINDS, decode, to_dict
from nginx_mesh.api.manifest import load
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.podstatus import ContainerStatus, PodStatus

from . import corpus
from .corpus import Raw

OBJECTS = corpus.objects()
of_each = pytest.mark.parametrize("raw", OBJECTS, ids=corpus.title)


def test_the_corpus_has_every_kind_that_only_clusters_have_but_events() -> None:
    only = {kind for version, kind in CLUSTER_KINDS.keys() - KINDS.keys()}
    assert only - {raw["kind"] for raw in OBJECTS} == {"Event"}


@of_each
def test_every_object_decodes(raw: Raw) -> None:
    obj = decode(raw, CLUSTER_KINDS)
    assert (obj.KIND, obj.metadata.name) == (raw["kind"], raw["metadata"]["name"])


def differences(written: Any, raw: Any, path: str = "") -> Iterator[str]:
    """Where what was written says something that the original does not."""
    if isinstance(written, dict) and isinstance(raw, dict):
        for key, value in written.items():
            # The API server leaves it out of the status of an ephemeral container.
            if key in raw or (key, value) != ("started", False):
                yield from differences(value, raw.get(key), join(path, step(key)))
    elif isinstance(written, list) and isinstance(raw, list) and len(written) == len(raw):
        for index, value in enumerate(written):
            yield from differences(value, raw[index], join(path, step(index)))
    elif written != raw:
        yield path


@of_each
def test_what_is_written_again_says_the_same(raw: Raw) -> None:
    obj = decode(raw, CLUSTER_KINDS)
    written = to_dict(obj)
    assert list(differences(written, without_nulls(raw))) == []
    assert decode(written, CLUSTER_KINDS) == obj


ACTED_ON = {
    "Pod": (
        "metadata.uid",
        "metadata.labels",
        "metadata.annotations",
        "metadata.ownerReferences[].name",
        "spec.serviceAccountName",
        "spec.nodeName",
        "spec.containers[].name",
        "spec.containers[].ports[].containerPort",
        "spec.containers[].readinessProbe.httpGet.port",
        "spec.containers[].volumeMounts[].mountPath",
        "spec.initContainers[].restartPolicy",
        "spec.initContainers[].startupProbe.exec.command",
        "spec.ephemeralContainers[].name",
        "spec.volumes[].name",
        "status.phase",
        "status.podIPs[].ip",
        "status.hostIPs[].ip",
        "status.startTime",
        "status.conditions[].type",
        "status.conditions[].status",
        "status.conditions[].lastTransitionTime",
        "status.containerStatuses[].ready",
        "status.containerStatuses[].started",
        "status.containerStatuses[].restartCount",
        "status.containerStatuses[].imageID",
        "status.containerStatuses[].state.waiting",
        "status.containerStatuses[].state.running",
        "status.containerStatuses[].state.terminated.exitCode",
        "status.containerStatuses[].lastState.terminated.exitCode",
        "status.initContainerStatuses[].state.running",
        "status.ephemeralContainerStatuses[].state.running",
    ),
    "Service": ("spec.selector", "spec.clusterIPs", "spec.ipFamilies", "spec.ports[].port", "spec.ports[].targetPort"),
    "EndpointSlice": (
        "metadata.labels",
        "addressType",
        "endpoints[].addresses",
        "endpoints[].conditions.ready",
        "endpoints[].targetRef.name",
        "ports[].port",
    ),
    "Endpoints": ("subsets[].addresses[].ip", "subsets[].addresses[].targetRef.name", "subsets[].ports[].port"),
    "Node": ("spec.podCIDRs", "status.addresses[].address"),
    "ConfigMap": ("data",),
    "Deployment": ("spec.selector.matchLabels", "spec.template.metadata.labels", "status.readyReplicas"),
    "CronJob": ("spec.jobTemplate.spec.template.spec.containers[].name",),
    "ControllerRevision": ("revision",),
}


def found(value: Any, path: str) -> list[Any]:
    """The values at a path, in which `[]` stands for every item of a list."""
    values = [value]
    for part in path.split("."):
        name, _, items = part.partition("[")
        values = [one[name] for one in values if name in one]
        if items:
            values = [item for one in values for item in one]
    return values


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in ACTED_ON.items() for path in paths])
def test_what_the_mesh_acts_on_is_kept(kind: str, path: str) -> None:
    originals = [without_nulls(raw) for raw in OBJECTS if raw["kind"] == kind]
    expected = [found(raw, path) for raw in originals]
    assert any(expected), "no object of the corpus has this field"
    assert [found(to_dict(decode(raw, CLUSTER_KINDS)), path) for raw in originals] == expected


def status(name: str) -> PodStatus:
    pod = decode(corpus.pod(name))
    assert isinstance(pod, Pod)
    return pod.status


def only(statuses: list[ContainerStatus]) -> ContainerStatus:
    (one,) = statuses
    return one


def test_states_of_containers_are_told_apart() -> None:
    crashing = only(status("crashing").container_statuses)
    assert crashing.state.terminated and crashing.state.terminated.exit_code == 1
    assert crashing.last_state.terminated and crashing.last_state.terminated.reason == "Error"
    assert crashing.restart_count == 2 and not crashing.ready
    pulling = only(status("pulling").container_statuses)
    assert pulling.state.waiting and pulling.state.waiting.reason == "ImagePullBackOff"
    done = only(status("once-").container_statuses)
    assert done.state.terminated and done.state.terminated.exit_code == 0
    assert status("unschedulable").ips == () and not status("unschedulable").ready
    assert status("db-0").ready


def test_native_sidecars_and_ephemeral_containers_are_told_apart() -> None:
    pods = [obj for raw in corpus.objects("pods.json") if isinstance(obj := decode(raw), Pod)]
    always = [c.name for pod in pods for c in pod.spec.init_containers if c.restart_policy == "Always"]
    assert set(always) == {"sidecar"}
    debugged = [pod for pod in pods if pod.spec.ephemeral_containers]
    assert [only(pod.status.ephemeral_container_statuses).name for pod in debugged] == ["dbg"]
    assert all(only(pod.status.ephemeral_container_statuses).state.running for pod in debugged)


FILES = sorted(
    name for name in {f"{type_.PLURAL}.json" for type_ in KINDS.values()} if (corpus.DIRECTORY / name).exists()
)


@pytest.mark.parametrize("name", FILES)
def test_manifests_of_them_are_valid(name: str) -> None:
    manifest = load((corpus.DIRECTORY / name).read_bytes(), name)
    assert manifest.errors == []
    assert len(manifest.objects) == len(corpus.objects(name))


@pytest.mark.parametrize(
    "source",
    [
        {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}},
        {"fileKeyRef": {"volumeName": "v", "path": "a.env", "key": "A"}},
    ],
)
def test_a_variable_may_come_from_wherever_kubernetes_takes_it(source: Raw) -> None:
    container = {"name": "a", "env": [{"name": "A", "valueFrom": source}]}
    raw = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    assert load(json.dumps(raw).encode(), "f").errors == []


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all fields and items in a value."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in pairs:
        # Nobody decodes what stands there, and it is most of every object.
        if part != "managedFields":
            yield (*path, part)
            yield from places(inner, (*path, part))


PLACES = [(raw, place) for raw in OBJECTS for place in places(raw)]
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False)
# Values as `documents.read` gives them.
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
REMOVED = object()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Raw, str]:
    """An object with one field or item changed or taken away, and where."""
    raw, place = draw(st.sampled_from(PLACES))
    raw = copy.deepcopy(raw)
    parent: Any = raw
    for part in place[:-1]:
        parent = parent[part]
    junk = draw(JUNK | st.just(REMOVED))
    if junk is REMOVED:
        del parent[place[-1]]
    else:
        parent[place[-1]] = junk
    path = ""
    for part in place:
        path = join(path, step(part))
    return raw, path


@given(damaged())
def test_a_damaged_object_decodes_or_says_where_it_is_damaged(case: tuple[Raw, str]) -> None:
    raw, path = case
    try:
        obj = decode(raw, CLUSTER_KINDS)
    except FieldError as error:
        assert error.reason
        # Without its kind, an object is not known by its apiVersion.
        assert path == "kind" or error.field.startswith(path) or path.startswith(error.field)
    else:
        assert decode(orjson.loads(orjson.dumps(to_dict(obj))), CLUSTER_KINDS) == obj


@given(damaged())
def test_a_manifest_with_a_damaged_object_is_judged_without_a_fault(case: tuple[Raw, str]) -> None:
    raw, _ = case
    manifest = load(json.dumps(raw).encode(), "f")
    assert manifest.objects or manifest.errors
    assert all(str(error).startswith("f document 1: ") for error in manifest.errors)
