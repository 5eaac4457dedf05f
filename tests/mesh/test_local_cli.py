"""The local mesh's commands, against a real daemon and real pods (without sidecars)."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from nginx_mesh.api.documents import read_one
from nginx_mesh.api.kinds import decode, to_dict
from nginx_mesh.api.pods import Pod

from .localcli import CTL, Load, LocalCli
from .manifests import web

pytestmark = pytest.mark.mesh

BARE_SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
"""
APP = BARE_SHOP + web("10.96.5.5", grace=3)


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as mesh:
        mesh.ok("up", "-f", "-", stdin=APP.encode())
        yield mesh


def pod(name: str, *command: str, **spec: object) -> str:
    container = {"name": "main", "command": list(command)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec},
        }
    )


def test_get_shows_what_kubectl_would(mesh: LocalCli) -> None:
    lines = mesh.ok("get", "deploy", "-n", "shop").splitlines()
    assert lines[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert lines[1].split()[:4] == ["web", "2/2", "2", "2"]
    pods = json.loads(mesh.ok("get", "pods", "-n", "shop", "-o", "json"))
    assert pods["kind"] == "List"
    assert len(pods["items"]) == 2
    service = yaml.safe_load(mesh.ok("get", "svc/web", "-n", "shop", "-o", "yaml"))
    assert service["spec"]["clusterIP"] == "10.96.5.5"
    assert "service/web" in mesh.ok("get", "all", "-n", "shop")
    result = mesh.run("get", "jobs")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "No resources found in default namespace.\n")
    assert 'Error from server (NotFound): pods "none" not found' in mesh.fails("get", "pod", "none")
    assert 'the server doesn\'t have a resource type "nones"' in mesh.fails("get", "nones")


def test_pods_have_the_shape_that_they_have_in_kubernetes(mesh: LocalCli) -> None:
    setup = {"name": "setup", "command": ["true"]}
    mesh.apply(pod("shaped", "sh", "-c", "sleep 2; exit 3", initContainers=[setup]))
    mesh.wait(lambda: "CrashLoopBackOff" in mesh.ok("get", "pod", "shaped"), 40)
    printed = mesh.ok("get", "pod", "shaped", "-o", "yaml")
    shown = decode(read_one(printed.encode(), "get"))
    assert isinstance(shown, Pod)
    status = shown.status
    assert [(c.type, c.status) for c in status.conditions] == [
        ("PodScheduled", "True"),
        ("Initialized", "True"),
        ("ContainersReady", "False"),
        ("Ready", "False"),
    ]
    assert all(condition.last_transition_time for condition in status.conditions)
    (main,), (initial,) = status.container_statuses, status.init_container_statuses
    assert main.restart_count >= 1 and main.state.waiting and main.state.waiting.reason == "CrashLoopBackOff"
    assert main.last_state.terminated and main.last_state.terminated.exit_code == 3
    assert status.start_time <= main.last_state.terminated.started_at < main.last_state.terminated.finished_at
    assert initial.ready and initial.state.terminated and initial.state.terminated.reason == "Completed"
    assert [entry.ip for entry in status.pod_ips][:1] == [status.pod_ip]
    again = decode(to_dict(shown))
    assert isinstance(again, Pod) and again.status == status
    injected = subprocess.run([*CTL[:-1], "inject"], input=printed.encode(), capture_output=True, check=True)
    assert read_one(injected.stdout, "inject")["status"] == read_one(printed.encode(), "get")["status"]
    mesh.ok("delete", "pod", "shaped")


def test_apply_says_what_became_of_each_object(mesh: LocalCli) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '%s'}\n"
    assert mesh.apply(config % 1) == "configmap/c created\n"
    assert mesh.apply(config % 1) == "configmap/c unchanged\n"
    assert mesh.apply(config % 2) == "configmap/c configured\n"
    assert mesh.ok("delete", "cm", "c") == 'configmap "c" deleted\n'
    assert 'configmaps "c" not found' in mesh.fails("delete", "cm", "c")
    assert mesh.ok("delete", "cm", "c", "--ignore-not-found") == ""
    assert set(mesh.apply(APP).split()[1::2]) == {"unchanged"}


def test_a_directory_is_applied_file_by_file(mesh: LocalCli, tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "note.txt"):
        (tmp_path / name).write_text(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: dir-{name[0]}}}\n")
    assert mesh.ok("apply", "-f", str(tmp_path)).split()[::2] == ["configmap/dir-a", "configmap/dir-b"]
    assert mesh.ok("delete", "-f", str(tmp_path)).count("deleted") == 2


def test_many_objects_are_applied_and_deleted_at_once(mesh: LocalCli, tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    one = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: many-%d}\n"
    file.write_text("---\n".join(one % number for number in range(3000)))
    start = time.monotonic()
    assert mesh.ok("apply", "-f", str(file)).count("created") == 3000
    assert mesh.ok("delete", "--no-wait", "-f", str(file)).count("deleted") == 3000
    assert time.monotonic() - start < 30
    said = mesh.fails("delete", "-f", str(file))
    assert 'Error from server (NotFound): configmaps "many-7" not found' in said
    assert mesh.ok("delete", "--ignore-not-found", "-f", str(file)) == ""
    mesh.apply(one % 1 + "---\n" + one % 2)
    assert mesh.ok("delete", "cm", "--all").count("deleted") == 2


def test_flags_without_a_meaning_here_are_refused(mesh: LocalCli) -> None:
    assert "--enable-udp has no meaning for a local mesh" in mesh.fails("up", "--enable-udp")


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: bad, namespace: shop}
spec:
  replicas: %s
  selector: {matchLabels: {app: bad}}
  template:
    metadata: {labels: {app: bad}}
    spec:
      serviceAccountName: %s
      containers: [{name: a, command: [sleep, "9"]}]
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: shop}\nspec: {clusterIP: %s, ports: %s}\n"
GOOD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n---\n"


TWO_OF_A_PORT = "[{port: 80, name: a}, {port: 80, name: b}]"
ANOTHER_SELECTOR = APP.replace("matchLabels: {app: web}", "matchLabels: {app: new}").replace(
    "    metadata: {labels: {app: web}}", "    metadata: {labels: {app: new}}"
)
BAD: dict[str, tuple[str | bytes, list[str]]] = {
    "malformed": ("a: [1,", ["bad.yaml document 1"]),
    "not UTF-8": (b"\xff\xfe\x00", ["bad.yaml", "not UTF-8"]),
    "unknown kind": (
        GOOD + "apiVersion: v1\nkind: Widget\nmetadata: {name: w}",
        ["bad.yaml document 2", "Widget w", "kind", "unknown kind"],
    ),
    "wrong type": (
        GOOD + DEPLOYMENT % ("two", "default"),
        ["Deployment shop/bad", "spec.replicas", "must be an integer"],
    ),
    "no service account": (
        GOOD + DEPLOYMENT % (1, "ghost"),
        ["Deployment shop/bad", "spec.template.spec.serviceAccountName", 'no ServiceAccount "ghost"'],
    ),
    "no namespace": (
        GOOD + SERVICE.replace("shop", "ghost") % ("s", "None", "[{port: 80}]"),
        ["Service ghost/s", "metadata.namespace", 'no Namespace "ghost"'],
    ),
    "port twice": (GOOD + SERVICE % ("s", "None", TWO_OF_A_PORT), ["Service shop/s", "spec.ports[1].port"]),
    "address taken": (
        GOOD + SERVICE % ("s", "10.96.5.5", "[{port: 80}]"),
        ["Service shop/s", "spec.clusterIP", "already allocated"],
    ),
    "object twice": (GOOD + GOOD, ["bad.yaml document 2", "ConfigMap default/good", "document 1"]),
    "too many documents": (GOOD * 10_000, ["bad.yaml", "more than"]),
    "immutable field": (GOOD + ANOTHER_SELECTOR, ["Deployment shop/web", "spec.selector", "may not change"]),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_a_bad_manifest_names_what_is_wrong_and_changes_nothing(
    mesh: LocalCli, tmp_path: Path, content: str | bytes, words: list[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = mesh.everything()
    said = mesh.fails("apply", "-f", str(file))
    assert said.startswith("error: ")
    for word in words:
        assert word in said
    assert mesh.everything() == before


def test_what_cannot_be_read_is_an_error(mesh: LocalCli) -> None:
    assert 'error: the path "/none.yaml" does not exist' in mesh.fails("apply", "-f", "/none.yaml")
    assert "no objects passed to apply" in mesh.fails("apply", "-f", "-")


def test_exec_passes_files_and_exit_code_through(mesh: LocalCli) -> None:
    result = mesh.run("exec", "deploy/web", "-n", "shop", "-i", "--", "sh", "-c", "cat; id -u >&2; exit 5", stdin=b"in")
    assert (result.returncode, result.stdout) == (5, "in")
    assert result.stderr.splitlines()[-1] == "65534"
    assert mesh.run("exec", "deploy/web", "-n", "shop", "--", "cat", stdin=b"in").stdout == ""
    assert 'pods "none" not found' in mesh.fails("exec", "none", "--", "true")
    assert "container none is not valid" in mesh.fails("exec", "deploy/web", "-n", "shop", "-c", "none", "--", "true")


def test_exec_gives_a_terminal(mesh: LocalCli) -> None:
    command = [*CTL, "exec", "--name", mesh.name, "-n", "shop", "-it", "deploy/web", "--", "sh"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, mesh.env)  # noqa: S606 - this is the command under test
    try:
        os.write(terminal, b"test -t 0 && echo 'a'terminal; exit 4\n")
        shown = b""
        while True:
            assert select.select([terminal], [], [], 20)[0], shown
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                break
        assert b"aterminal" in shown
    finally:
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4


def test_logs_are_shown_and_followed(mesh: LocalCli) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; until [ -e /tmp/go ]; do sleep 0.1; done; echo last"
    mesh.apply(pod("talker", "sh", "-c", script, restartPolicy="Never"))
    mesh.wait(lambda: "line 5" in mesh.ok("logs", "talker"))
    assert mesh.ok("logs", "talker", "--tail", "2") == "line 4\nline 5\n"
    command = [*CTL, "logs", "--name", mesh.name, "-f", "talker", "--tail", "1"]
    with subprocess.Popen(command, env=mesh.env, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "line 5\n"
        mesh.ok("exec", "talker", "--", "touch", "/tmp/go")  # noqa: S108 - in the container
        assert following.stdout.read() == "last\n"
    assert "container x is not valid for pod talker" in mesh.fails("logs", "talker", "-c", "x")
    mesh.ok("delete", "pod", "talker")


def test_a_job_runs_to_its_end(mesh: LocalCli) -> None:
    mesh.apply(
        """
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: a, command: [sh, -c, "echo $((1 + 2))"]}]
"""
    )
    mesh.wait(lambda: "Complete" in mesh.ok("get", "job", "sum"))
    assert mesh.ok("logs", "job/sum") == "3\n"
    described = mesh.ok("describe", "job", "sum")
    assert described.count("Created pod: sum-") == 2
    mesh.ok("delete", "job/sum")
    mesh.wait(lambda: "sum-" not in mesh.ok("get", "pods"))


def test_a_statefulset_has_stable_names(mesh: LocalCli) -> None:
    manifest = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: a, command: [sh, -c, "hostname; sleep 600"]}]
"""
    mesh.apply(manifest)
    mesh.wait(lambda: "2/2" in mesh.ok("get", "sts", "db"))
    assert mesh.ok("logs", "db-1") == "db-1\n"
    uids = "-o", "json"
    before = json.loads(mesh.ok("get", "pod", "db-0", *uids))["metadata"]["uid"]
    mesh.ok("restart", "sts/db")
    assert json.loads(mesh.ok("get", "pod", "db-0", *uids))["metadata"]["uid"] != before
    mesh.ok("scale", "sts/db", "--replicas", "0")
    mesh.wait(lambda: "db-" not in mesh.ok("get", "pods"))
    mesh.ok("delete", "sts", "db")


def test_no_request_fails_while_pods_come_go_and_are_replaced_and_the_daemon_is_killed(mesh: LocalCli) -> None:
    with Load(mesh, "10.96.5.5") as load:
        mesh.ok("scale", "deploy/web", "--replicas", "4", "-n", "shop")
        mesh.wait(lambda: "4/4" in mesh.ok("get", "deploy", "web", "-n", "shop"))
        mesh.ok("restart", "deploy/web", "-n", "shop")
        mesh.ok("scale", "deploy", "web", "--replicas", "1", "-n", "shop")
        mesh.wait(lambda: len(mesh.ok("get", "pods", "-n", "shop").splitlines()) == 2)
        os.kill(mesh.daemon_pid(), signal.SIGKILL)
        mesh.wait(lambda: mesh.run("get", "pods").returncode != 0)
        assert f'mesh "{mesh.name}" has no daemon' in mesh.fails("get", "pods")
        time.sleep(0.5)
        mesh.ok("up")
        mesh.ok("scale", "deploy", "web", "--replicas", "2", "-n", "shop")
        mesh.wait(lambda: "2/2" in mesh.ok("get", "deploy", "web", "-n", "shop"))
    assert load.failures == []
    assert load.requests > 100


def test_statuses_that_an_earlier_version_stored_do_not_disturb_the_pods(mesh: LocalCli) -> None:
    def of_web() -> list[tuple[str, int, str]]:
        pods = json.loads(mesh.ok("get", "pods", "-n", "shop", "-o", "json"))["items"]
        statuses = [(one["metadata"]["uid"], one["status"]["containerStatuses"][0]) for one in pods]
        assert all(status["ready"] for _, status in statuses)
        return [(uid, status["restartCount"], status["state"]["running"]["startedAt"]) for uid, status in statuses]

    mesh.wait_ready()
    before = of_web()
    assert before
    os.kill(mesh.daemon_pid(), signal.SIGKILL)
    mesh.wait(lambda: mesh.run("get", "pods").returncode != 0)
    with closing(sqlite3.connect(mesh.paths.state / "store.db")) as database, database:
        for name, data in database.execute("SELECT name, data FROM objects WHERE kind = 'Pod'").fetchall():
            stored = json.loads(data)
            stored["status"]["containerStatuses"] = [
                {"name": one["name"], "ready": one["ready"], "state": "running"}
                for one in stored["status"]["containerStatuses"]
            ]
            database.execute("UPDATE objects SET data = ? WHERE name = ?", (json.dumps(stored), name))
    mesh.ok("up")
    assert of_web() == before


def test_up_fails_with_the_reason_and_the_last_words_of_what_is_not_ready(mesh: LocalCli) -> None:
    image_only = """
apiVersion: v1
kind: Pod
metadata: {name: image-only}
spec: {containers: [{name: a, image: nginx}]}
"""
    said = mesh.fails("up", "-f", "-", stdin=image_only.encode())
    assert "pod/image-only" in said
    assert "spec.containers[0].command" in said
    mesh.ok("delete", "pod", "image-only")
    # The probe: between start and end a container without one is ready.
    never = {"exec": {"command": ["false"]}}
    main = {"name": "main", "command": ["sh", "-c", "echo no database; exit 3"], "readinessProbe": never}
    broken = pod("broken", containers=[main])
    try:
        said = mesh.fails("up", "-f", "-", "--wait-timeout", "4s", stdin=broken.encode())
        assert "1 not ready after 4 s" in said
        assert "pod/broken in namespace default: container main: " in said
        assert "no database" in said
        mesh.wait(lambda: "CrashLoopBackOff" in mesh.ok("describe", "pod", "broken"))
    finally:
        mesh.ok("delete", "pod", "broken")


def test_a_namespace_takes_everything_in_it_along(mesh: LocalCli) -> None:
    mesh.apply(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: gone}\n---\n" + APP.split("---")[1].replace("shop", "gone")
    )
    mesh.wait(lambda: "2/2" in mesh.ok("get", "deploy", "-n", "gone"))
    mesh.ok("delete", "ns", "gone")
    assert "No resources found" in mesh.run("get", "all", "-n", "gone").stderr
    assert "forbidden" in mesh.fails("delete", "ns", "default")


def test_the_mesh_config_is_there_and_changes_live(mesh: LocalCli) -> None:
    config = yaml.safe_load(mesh.ok("get", "meshconfig", "nginx-mesh-config", "-n", "nginx-mesh", "-o", "yaml"))
    assert config["spec"]["mtls"]["mode"] == "permissive"
    config["spec"]["mtls"]["mode"] = "strict"
    assert "configured" in mesh.apply(yaml.safe_dump(config))
    mesh.ok("up", "--mtls-mode", "off", "--nginx-lb-method", "random two")
    config = yaml.safe_load(mesh.ok("get", "meshconfig", "nginx-mesh-config", "-n", "nginx-mesh", "-o", "yaml"))
    assert (config["spec"]["mtls"]["mode"], config["spec"]["nginxLBMethod"]) == ("off", "random two")
    assert "trust_domain" in mesh.fails("up", "--mtls-trust-domain", "other.example")
    config["spec"]["nginxLBMethod"] = "best"
    assert "spec.nginxLBMethod" in mesh.fails("apply", "-f", "-", stdin=yaml.safe_dump(config).encode())


def test_meshes_live_side_by_side(mesh: LocalCli) -> None:
    other = f"{mesh.name}-b"
    assert mesh.run("up", name=other).returncode == 0
    listed = mesh.run("list", name=None).stdout
    assert {line.split()[0] for line in listed.splitlines()[1:]} == {mesh.name, other}
    assert "No resources found" in mesh.run("get", "pods", "-A", name=other).stderr
    assert mesh.run("down", name=other).stdout == f'mesh "{other}" is down\n'
    result = mesh.run("down", name=other)
    assert (result.returncode, result.stderr) == (1, f'error: there is no mesh named "{other}"\n')


def test_a_mesh_that_was_never_started_and_a_user_that_is_not_root_get_a_clear_error(mesh: LocalCli) -> None:
    result = mesh.run("get", "pods", name="never")
    assert (result.returncode, result.stdout) == (1, "")
    assert 'there is no mesh named "never"' in result.stderr
    result = mesh.run("get", "pods", user=65534)
    assert result.returncode == 1
    assert "need root" in result.stderr


def test_a_refused_manifest_leaves_no_mesh_behind(mesh: LocalCli, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("apiVersion: v1\nkind: Widget\n")
    result = mesh.run("up", "-f", str(file), name=f"{mesh.name}-c")
    assert result.returncode == 1
    assert "unknown kind" in result.stderr
    assert f"{mesh.name}-c" not in mesh.run("list", name=None).stdout


def test_commands_start_quickly() -> None:
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import nginx_mesh.cli.local.commands"], check=True)
    assert time.monotonic() - start < 2
