from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.annotations import AUTO_INJECT, ENABLE_EGRESS, ENABLE_INGRESS, PROBES, STATUS
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.kinds import decode
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.validate import validate
from nginx_mesh.inject import InjectResult, InjectSettings, ProbeRedirect, inject_pod, probes

Raw = dict[str, Any]

SETTINGS = InjectSettings(init_image="registry/init:1", sidecar_image="registry/sidecar:1")
ENABLED = {AUTO_INJECT: "enabled"}


def pod(*, labels: Raw | None = None, annotations: Raw | None = None, namespace: str = "shop", **spec: Any) -> Raw:
    metadata = {"name": "web", "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}}
    containers = [{"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}]}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def injected(raw: Raw, **arguments: Any) -> Raw:
    result = inject_pod(raw, ENABLED, SETTINGS, **arguments)
    assert result.injected, result.reason
    return result.pod


def container(raw: Raw, name: str) -> Raw:
    spec = raw["spec"]
    (found,) = [one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] == name]
    return found  # type: ignore[no-any-return]


def test_a_pod_gets_its_sidecar() -> None:
    result = injected(pod())
    assert [one["name"] for one in result["spec"]["containers"]] == ["app", "nginx-mesh-sidecar"]
    assert [one["name"] for one in result["spec"]["initContainers"]] == ["nginx-mesh-init"]
    assert result["metadata"]["annotations"] == {STATUS: "injected"}
    assert result["metadata"]["labels"] == {"spiffe.io/spiffeid": "true"}
    assert container(result, "nginx-mesh-init")["image"] == "registry/init:1"
    assert container(result, "nginx-mesh-sidecar")["image"] == "registry/sidecar:1"


def test_the_sidecar_has_no_privileges() -> None:
    context = container(injected(pod()), "nginx-mesh-sidecar")["securityContext"]
    assert context["runAsUser"] == context["runAsGroup"] == 2102
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    assert context["privileged"] is False
    assert context["readOnlyRootFilesystem"] is True


def test_the_init_container_has_only_the_privileges_that_redirection_needs() -> None:
    context = container(injected(pod()), "nginx-mesh-init")["securityContext"]
    assert context["runAsUser"] == 0
    assert context["runAsNonRoot"] is False
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert context["privileged"] is False


def test_only_the_sidecar_sees_its_socket() -> None:
    result = injected(pod())
    assert {"name": "nginx-mesh-socket", "csi": {"driver": "csi.nginx-mesh.nginx.com"}} in result["spec"]["volumes"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(result, "nginx-mesh-sidecar")["volumeMounts"]}
    assert mounts == {"nginx-mesh-socket": "/run/nginx-mesh", "nginx-mesh-tmp": "/tmp"}  # noqa: S108
    assert "volumeMounts" not in container(result, "app")
    assert "volumeMounts" not in container(result, "nginx-mesh-init")


def test_a_pod_is_ready_only_with_its_sidecar() -> None:
    probe = container(injected(pod()), "nginx-mesh-sidecar")["readinessProbe"]
    assert probe["httpGet"] == {"path": "/health-redirects/sidecar/ready", "port": 8895}


def test_an_injected_pod_is_a_valid_pod() -> None:
    raw = pod(initContainers=[{"name": "prepare"}], volumes=[{"name": "data", "emptyDir": {}}])
    result = decode(injected(raw))
    assert isinstance(result, Pod)
    assert validate(result) == []


def test_the_pods_own_init_containers_run_before_redirection() -> None:
    names = [one["name"] for one in injected(pod(initContainers=[{"name": "prepare"}]))["spec"]["initContainers"]]
    assert names == ["prepare", "nginx-mesh-init"]


def test_ignored_ports_of_annotations_and_settings_are_united_in_the_pods_annotations() -> None:
    annotations = {
        "config.nsm.nginx.com/ignore-incoming-ports": "9000, 80",
        "config.nsm.nginx.com/ignore-outgoing-ports": "5432",
    }
    settings = InjectSettings(ignore_incoming_ports=(443, 80))
    result = inject_pod(pod(annotations=annotations), ENABLED, settings).pod
    args = container(result, "nginx-mesh-init")["args"]
    assert args == ["--ignore-incoming-ports=80,443,9000", "--ignore-outgoing-ports=5432"]
    assert result["metadata"]["annotations"]["config.nsm.nginx.com/ignore-incoming-ports"] == "80,443,9000"
    assert result["metadata"]["annotations"]["config.nsm.nginx.com/ignore-outgoing-ports"] == "5432"


@pytest.mark.parametrize(
    ("pod_label", "namespace_label", "expected"),
    [
        (None, None, False),
        (None, "enabled", True),
        ("enabled", None, True),
        ("disabled", "enabled", False),
        ("enabled", "disabled", True),
    ],
)
def test_labels_decide_unless_injection_is_explicit(
    pod_label: str | None, namespace_label: str | None, expected: bool
) -> None:
    raw = pod(labels={AUTO_INJECT: pod_label} if pod_label else {})
    namespace = {AUTO_INJECT: namespace_label} if namespace_label else {}
    assert inject_pod(raw, namespace, SETTINGS).injected is expected
    assert inject_pod(raw, namespace, SETTINGS, explicit=True).injected


def clashing(*ports: Raw) -> Raw:
    return pod(containers=[{"name": f"c{index}", "ports": [port]} for index, port in enumerate(ports)])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (pod(namespace="kube-system"), "kube-system"),
        (pod(hostNetwork=True), "host's network"),
        (clashing({"containerPort": 80, "protocol": "SCTP"}), "SCTP"),
        (clashing({"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}), "80/TCP is declared twice"),
        (clashing({"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "UDP"}), "53/UDP"),
    ],
)
def test_some_pods_are_never_injected(raw: Raw, reason: str) -> None:
    for explicit in (False, True):
        result = inject_pod(raw, ENABLED, SETTINGS, explicit=explicit)
        assert not result.injected
        assert reason in result.reason
        assert result.pod == raw


def test_a_template_is_injected_for_the_given_namespace() -> None:
    template = {"spec": {"containers": [{"name": "app"}]}}
    assert not inject_pod(template, ENABLED, SETTINGS, namespace="kube-system").injected


def test_tcp_and_udp_may_share_a_port_number() -> None:
    injected(clashing({"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}))


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (
            pod(annotations={"config.nsm.nginx.com/ignore-incoming-ports": "http"}),
            "metadata.annotations[config.nsm.nginx.com/ignore-incoming-ports]",
        ),
        (
            pod(annotations={"config.nsm.nginx.com/mtls-mode": "on"}),
            "metadata.annotations[config.nsm.nginx.com/mtls-mode]",
        ),
        (pod(containers=[{"name": "nginx-mesh-sidecar"}]), "spec.containers[0].name"),
        (pod(initContainers=[{"name": "nginx-mesh-init"}]), "spec.initContainers[0].name"),
        (clashing({"containerPort": 8887}), "spec.containers[0].ports[0].containerPort"),
        (pod(securityContext={"runAsUser": 2102}), "spec.securityContext.runAsUser"),
        (
            pod(containers=[{"name": "a", "securityContext": {"runAsUser": 2102}}]),
            "spec.containers[0].securityContext.runAsUser",
        ),
        (pod(volumes=[{"name": "nginx-mesh-socket"}]), "spec.volumes[0].name"),
    ],
)
def test_a_conflict_with_the_sidecar_is_refused_with_its_field(raw: Raw, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        inject_pod(raw, ENABLED, SETTINGS)
    assert caught.value.field == field
    assert not inject_pod(raw, {}, SETTINGS).injected


@pytest.mark.parametrize(
    ("references", "template_hash", "label"),
    [
        ([], None, None),
        ([{"kind": "ReplicaSet", "name": "web-6f7", "controller": True}], "6f7", ("deployment", "web")),
        ([{"kind": "ReplicaSet", "name": "web-6f7", "controller": True}], None, ("replicaset", "web-6f7")),
        ([{"kind": "StatefulSet", "name": "db", "controller": True}], None, ("statefulset", "db")),
        ([{"kind": "DaemonSet", "name": "logs"}], None, None),
        ([{"kind": "Job", "name": "x" * 64, "controller": True}], None, None),
    ],
)
def test_a_pod_is_labelled_with_its_owner(
    references: list[Raw], template_hash: str | None, label: tuple[str, str] | None
) -> None:
    raw = pod(labels={"pod-template-hash": template_hash} if template_hash else {})
    raw["metadata"]["ownerReferences"] = references
    labels = {
        key: value for key, value in injected(raw)["metadata"]["labels"].items() if key.startswith("nsm.nginx.com")
    }
    assert labels == ({f"nsm.nginx.com/{label[0]}": label[1]} if label else {})


@pytest.mark.parametrize("label", [ENABLE_INGRESS, ENABLE_EGRESS])
def test_a_gateway_gets_the_workload_api_and_no_sidecar(label: str) -> None:
    raw = pod(labels={label: "true", **ENABLED}, hostNetwork=True)
    result = inject_pod(raw, ENABLED, SETTINGS)
    assert not result.injected
    assert [one["name"] for one in result.pod["spec"]["containers"]] == ["app"]
    (volume,) = result.pod["spec"]["volumes"]
    assert volume["csi"] == {"driver": "csi.nginx-mesh.nginx.com", "readOnly": True}
    (mount,) = container(result.pod, "app")["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": "/run/spire/sockets", "readOnly": True}
    assert STATUS not in result.pod["metadata"]["annotations"]
    assert inject_pod(result.pod, ENABLED, SETTINGS).pod == result.pod


def test_a_false_label_makes_no_gateway() -> None:
    injected(pod(labels={ENABLE_INGRESS: "false"}))


def probed(**container_probes: Any) -> tuple[Raw, list[ProbeRedirect]]:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 9000}]
    raw = pod(
        annotations={"config.nsm.nginx.com/ignore-incoming-ports": "9000"},
        containers=[{"name": "app", "ports": ports, **container_probes}],
    )
    result = injected(raw)
    return container(result, "app"), probes(result["metadata"]["annotations"])


def test_http_probes_are_rewritten_to_the_sidecar() -> None:
    headers = [{"name": "Host", "value": "web.test"}, {"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]
    app, redirects = probed(
        livenessProbe={"httpGet": {"port": 8080, "path": "healthz?x=1#y"}, "periodSeconds": 7},
        readinessProbe={"httpGet": {"port": "http", "scheme": "HTTPS", "httpHeaders": headers}},
        startupProbe={"httpGet": {"port": 1234, "path": "/ü b"}},
    )
    assert app["livenessProbe"] == {
        "httpGet": {"port": 8895, "path": "/health-redirects/app/liveness"},
        "periodSeconds": 7,
    }
    assert app["readinessProbe"]["httpGet"]["port"] == 8896
    assert app["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert app["readinessProbe"]["httpGet"]["path"] == "/health-redirects/app/readiness"
    assert redirects == [
        ProbeRedirect(path="/health-redirects/app/liveness", scheme="http", port=8080, original_path="/healthz?x=1"),
        ProbeRedirect(
            path="/health-redirects/app/readiness",
            scheme="https",
            port=8080,
            host="web.test",
            headers={"x-a": "1, 2"},
        ),
        ProbeRedirect(path="/health-redirects/app/startup", scheme="http", port=1234, original_path="/%C3%BC%20b"),
    ]


def test_tcp_probes_are_rewritten_to_the_sidecar() -> None:
    app, redirects = probed(readinessProbe={"tcpSocket": {"port": "http"}, "timeoutSeconds": 2})
    assert app["readinessProbe"] == {
        "httpGet": {"path": "/health-redirects/app/readiness", "port": 8895},
        "timeoutSeconds": 2,
    }
    assert redirects == [ProbeRedirect(path="/health-redirects/app/readiness", scheme="tcp", port=8080)]


@pytest.mark.parametrize(
    "probe",
    [
        {"exec": {"command": ["true"]}},
        {"grpc": {"port": 8080}},
        {"httpGet": {"port": "admin"}},
        {"tcpSocket": {"port": 9000}},
        {"httpGet": {"port": 8080, "host": "elsewhere.test"}},
        {"httpGet": {"port": "unknown"}},
    ],
)
def test_probes_that_bypass_the_sidecar_or_check_another_host_stay(probe: Raw) -> None:
    app, redirects = probed(readinessProbe=probe)
    assert app["readinessProbe"] == probe
    assert redirects == []


def test_a_probe_with_an_invalid_header_is_refused() -> None:
    headers = [{"name": "X-A", "value": "1\r\nX-B: 2"}]
    with pytest.raises(FieldError):
        probed(readinessProbe={"httpGet": {"port": 8080, "httpHeaders": headers}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"path": "/health-redirects/sidecar/ready", "scheme": "http", "port": 80}]',
        '[{"path": "/metrics", "scheme": "http", "port": 80}]',
        '[{"path": "/health-redirects/a/b", "scheme": "ftp", "port": 80}]',
        '[{"path": "/health-redirects/a/b", "scheme": "http", "port": 0}]',
        '[{"path": "/health-redirects/a/b", "scheme": "http", "port": 80, "original_path": "/a b"}]',
        '[{"path": "/health-redirects/a/b", "scheme": "http", "port": 80, "original_path": "/\\r\\n"}]',
        '[{"path": "/health-redirects/a/b", "scheme": "http", "port": 80, "headers": {"a": "\\n"}}]',
        '[{"path": "/health-redirects/a/b", "scheme": "http", "port": 80, "host": "\\u0000"}]',
        "[" * 100_000,
    ],
)
def test_an_invalid_annotation_of_probes_is_refused(text: str) -> None:
    with pytest.raises(FieldError) as caught:
        probes({PROBES: text})
    assert caught.value.field == PROBES


def test_a_pod_with_the_annotation_but_no_sidecar_is_injected() -> None:
    result = injected(pod(annotations={STATUS: "injected"}))
    container(result, "nginx-mesh-sidecar")


names = st.sampled_from(["a", "b", "c", "app"])
ports = st.integers(1, 8000)
probe_actions = st.one_of(
    st.fixed_dictionaries(
        {"httpGet": st.fixed_dictionaries({"port": ports}, optional={"path": st.text(max_size=8), "custom": st.none()})}
    ),
    st.fixed_dictionaries({"tcpSocket": st.fixed_dictionaries({"port": ports})}),
    st.just({"exec": {"command": ["true"]}}),
)


def containers(prefix: str) -> st.SearchStrategy[list[Raw]]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "image": st.text(max_size=5),
        "ports": st.none() | st.lists(st.fixed_dictionaries({"containerPort": ports}), max_size=2),
        "readinessProbe": st.none() | probe_actions,
        "livenessProbe": probe_actions,
        "volumeMounts": st.none() | st.just([]),
        "unknown": st.dictionaries(st.text(max_size=3), st.integers()),
    }
    one = st.fixed_dictionaries({}, optional=fields)
    return st.lists(one, max_size=3).map(
        lambda found: [{"name": f"{prefix}{index}", **fields} for index, fields in enumerate(found)]
    )


metadata_values = st.fixed_dictionaries(
    {"name": names},
    optional={
        "labels": st.none() | st.dictionaries(names, names),
        "annotations": st.none() | st.just({"config.nsm.nginx.com/ignore-incoming-ports": "80,81"}),
        "managedFields": st.just([{"manager": "x"}]),
    },
)
pods = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.just("Pod"), "metadata": metadata_values},
).flatmap(
    lambda raw: st.fixed_dictionaries(
        {"containers": containers("app")},
        optional={
            "initContainers": st.none() | containers("init"),
            "volumes": st.none() | st.just([{"name": "v", "hostPath": {"path": "/x"}}]),
            "hostNetwork": st.booleans() | st.none(),
            "dnsPolicy": st.text(max_size=3),
        },
    ).map(lambda spec: {**raw, "spec": spec})
)


def attempt(raw: Raw) -> InjectResult | None:
    try:
        return inject_pod(raw, ENABLED, SETTINGS)
    except FieldError:
        return None


@given(pods)
def test_injecting_twice_is_injecting_once(raw: Raw) -> None:
    once = attempt(raw)
    if once is not None:
        assert inject_pod(once.pod, ENABLED, SETTINGS).pod == once.pod


@given(pods)
def test_injection_leaves_its_argument_alone(raw: Raw) -> None:
    before = copy.deepcopy(raw)
    attempt(raw)
    assert raw == before


PROBE_FIELDS = ("readinessProbe", "livenessProbe", "startupProbe")


def contains(inside: Any, outside: Any) -> bool:
    """Whether `outside` contains everything in `inside`."""
    if inside is None:
        return True
    if isinstance(inside, dict) and isinstance(outside, dict):
        return all(
            key in PROBE_FIELDS or (key in outside and contains(value, outside[key])) or value is None
            for key, value in inside.items()
        )
    if isinstance(inside, list) and isinstance(outside, list):
        return len(inside) <= len(outside) and all(map(contains, inside, outside))
    return bool(inside == outside)


@given(pods)
def test_injection_loses_nothing_that_a_user_wrote(raw: Raw) -> None:
    result = attempt(raw)
    if result is None:
        return
    assert contains(raw, result.pod)
    if not result.injected:
        return
    found = probes(result.pod["metadata"]["annotations"])
    for field in ("initContainers", "containers"):
        for before, after in zip(raw["spec"].get(field) or (), result.pod["spec"][field], strict=False):
            for kind in PROBE_FIELDS:
                probe = before.get(kind) or {}
                action = probe.get("httpGet") or probe.get("tcpSocket")
                if action is None or action["port"] in (53, 80, 81):
                    continue
                path = f"/health-redirects/{before['name']}/{kind.removesuffix('Probe')}"
                assert after[kind]["httpGet"]["path"] == path
                assert [one.port for one in found if one.path == path] == [action["port"]]


@given(st.text())
def test_any_text_in_the_annotation_of_probes_is_read_or_refused(text: str) -> None:
    try:
        probes({PROBES: text})
    except FieldError as error:
        assert error.field == PROBES
    try:
        probes({PROBES: json.dumps([{"path": text, "scheme": "http", "port": 80, "original_path": text}])})
    except FieldError as error:
        assert error.field == PROBES
