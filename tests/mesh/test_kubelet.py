"""The kubelet with real namespaces: what a container is given, what it is kept from, and what is told of it."""

# The /tmp here is the containers' own.
# ruff: noqa: S108

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from nginx_mesh.api.annotations import SIDECAR_CONTAINER
from nginx_mesh.api.config import ConfigMap, Secret
from nginx_mesh.api.containers import (
    Capabilities,
    Container,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    ExecAction,
    FieldSelector,
    GRPCAction,
    HTTPGetAction,
    KeySelector,
    ObjectRef,
    Probe,
    SecurityContext,
    TCPSocketAction,
    VolumeMount,
)
from nginx_mesh.api.meta import ObjectMeta
from nginx_mesh.api.pods import Pod, PodSecurityContext
from nginx_mesh.api.times import rfc3339
from nginx_mesh.api.volumes import (
    ConfigMapVolumeSource,
    CSIVolumeSource,
    EmptyDirVolumeSource,
    SecretVolumeSource,
    Volume,
)
from nginx_mesh.local.net import netns
from nginx_mesh.local.node.kubelet import NotRunningError
from tests.eventually import eventually

from .localnode import LocalNode, exit_code, python, why

pytestmark = pytest.mark.mesh

SLEEP = ["sleep", "1000"]


def app(*command: str, **fields: object) -> Container:
    return Container(name="app", command=list(command), **fields)  # type: ignore[arg-type]


def as_root(*capabilities: str) -> SecurityContext:
    return SecurityContext(run_as_user=0, capabilities=Capabilities(add=list(capabilities)))


def processes_in(node: LocalNode, *pods: Pod) -> list[str]:
    """Command lines of everything in the network namespaces of these pods."""
    wanted = {netns.namespace_id(netns.path(node.paths.pod_netns(pod.metadata.uid))) for pod in pods} - {None}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and netns.namespace_id(entry / "ns/net") in wanted:
            found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


# What a container is given


async def test_two_pods_talk_over_both_ip_versions() -> None:
    async with LocalNode() as node:
        probe = Probe(tcp_socket=TCPSocketAction(port=80))
        server = node.pod("server", app("python3", "-m", "http.server", "--bind", "::", "80", readiness_probe=probe))
        await node.run(server)
        code = "import sys,urllib.request\nfor u in sys.argv[1:]: print(urllib.request.urlopen(u, timeout=5).status)"
        urls = [f"http://{server.status.ips[0]}", f"http://[{server.status.ips[1]}]"]
        client = node.pod("client", app(*python(code), *urls), restart_policy="Never")
        assert (await node.finish(client)).split() == ["200", "200"]


async def test_environment_is_exact_and_references_are_expanded() -> None:
    async with LocalNode() as node:
        node.put(
            ConfigMap(
                metadata=ObjectMeta(name="settings", namespace="default"), data={"COLOUR": "blue", "ODD": "a\nb"}
            ),
            Secret(metadata=ObjectMeta(name="keys", namespace="default"), data={"token": "c2VjcmV0"}),
        )
        token = EnvVarSource(secret_key_ref=KeySelector(name="keys", key="token"))
        fields = ["metadata.name", "metadata.uid", "status.podIPs", "spec.nodeName", "metadata.labels['app']"]
        variables = [EnvVar(name="PLAIN", value="$(CONF_COLOUR) $$(X) $(NONE)"), EnvVar(name="TOKEN", value_from=token)]
        variables += [
            EnvVar(name=f"F{number}", value_from=EnvVarSource(field_ref=FieldSelector(field_path=path)))
            for number, path in enumerate(fields)
        ]
        variables.append(EnvVar(name="dotted.name-1", value="kept"))
        source = EnvFromSource(prefix="CONF_", config_map_ref=ObjectRef(name="settings"))
        show = python("import json,os,sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))")
        container = app(*show, args=["$(PLAIN)", "$(HOSTNAME)!"], env=variables, env_from=[source])
        pod = node.pod("shown", container, restart_policy="Never")
        env, arguments = json.loads(await node.finish(pod))
        env.pop("LC_CTYPE", None)  # Python's own doing
        assert env.pop("PATH").startswith("/opt/nginx-mesh/venv/bin:")
        assert env == {
            "HOSTNAME": "shown",
            "CONF_COLOUR": "blue",
            "CONF_ODD": "a\nb",
            "PLAIN": "blue $(X) $(NONE)",
            "TOKEN": "secret",
            "F0": "shown",
            "F1": pod.metadata.uid,
            "F2": ",".join(pod.status.ips),
            "F3": "local",
            "F4": "shown",
            "dotted.name-1": "kept",
        }
        assert arguments == ["blue $(X) $(NONE)", "shown!"]


async def test_configmaps_and_secrets_are_files_that_follow_their_objects() -> None:
    async with LocalNode() as node:
        meta = ObjectMeta(name="conf", namespace="default")
        node.put(
            ConfigMap(metadata=meta, data={"a.txt": "one"}),
            Secret(metadata=ObjectMeta(name="keys", namespace="default"), data={"key": "c2VjcmV0"}),
        )
        mounts = [VolumeMount(name="conf", mount_path="/etc/conf"), VolumeMount(name="keys", mount_path="/keys")]
        volumes = [
            Volume(name="conf", config_map=ConfigMapVolumeSource(name="conf")),
            Volume(
                name="keys",
                secret=SecretVolumeSource(secret_name="keys", default_mode=0o400),  # noqa: S106
            ),
        ]
        security = PodSecurityContext(fs_group=4711)
        pod = node.pod("p", app(*SLEEP, volume_mounts=mounts), volumes=volumes, security_context=security)
        await node.run(pod)
        assert await node.exec(pod, "cat", "/etc/conf/a.txt", "/keys/key") == (0, "onesecret")
        assert await node.exec(pod, "stat", "-c", "%a %u %g", "/keys/key") == (0, "440 0 4711\n")
        assert (await node.exec(pod, "sh", "-c", "echo x > /etc/conf/a.txt"))[0] != 0

        changed = ConfigMap(metadata=meta, data={"b.txt": "two"})
        node.put(changed)
        await node.kubelet.object_changed(changed.key)
        assert await node.exec(pod, "sh", "-c", "ls /etc/conf; cat /etc/conf/b.txt") == (0, "b.txt\ntwo")


async def test_a_pod_waits_for_what_it_refers_to_and_says_so() -> None:
    async with LocalNode() as node:
        source = EnvVarSource(config_map_key_ref=KeySelector(name="late", key="K"))
        pod = node.pod("p", app(*SLEEP, env=[EnvVar(name="V", value_from=source)]))
        await node.kubelet.run_pod(pod)
        status = await node.wait(pod, lambda s: why(s.container_statuses[0])[0] == "CreateContainerConfigError")
        assert why(status.container_statuses[0])[1].startswith(
            "spec.containers[0].env[0].valueFrom: ConfigMap default/late"
        )
        late = ConfigMap(metadata=ObjectMeta(name="late", namespace="default"), data={"K": "v"})
        node.put(late)
        await node.kubelet.object_changed(late.key)
        await node.wait(pod, lambda s: s.ready)


async def test_scratch_space_is_shared_in_the_pod_and_subpaths_cannot_leave_it() -> None:
    async with LocalNode() as node:
        volumes = [Volume(name="scratch", empty_dir=EmptyDirVolumeSource())]
        whole = VolumeMount(name="scratch", mount_path="/scratch")
        part = VolumeMount(name="scratch", mount_path="/part", sub_path="deep/er")
        writer = app(
            "sh", "-c", "mkdir -p /scratch/deep; ln -s / /scratch/escape; exec sleep 1000", volume_mounts=[whole]
        )
        reader = Container(name="reader", command=SLEEP, volume_mounts=[part, whole])
        pod = node.pod("p", writer, reader, volumes=volumes)
        await node.run(pod)
        assert (await node.exec(pod, "touch", "/part/mine", container="reader"))[0] == 0
        assert await node.exec(pod, "ls", "/scratch/deep/er") == (0, "mine\n")

        escape = VolumeMount(name="scratch", mount_path="/host", sub_path="escape/etc")
        setup = Container(name="setup", command=["ln", "-s", "/", "/scratch/escape"], volume_mounts=[whole])
        climber = node.pod("climber", app(*SLEEP, volume_mounts=[escape]), volumes=volumes, init_containers=[setup])
        await node.kubelet.run_pod(climber)
        status = await node.wait(climber, lambda s: "symbolic link" in why(s.container_statuses[0])[1])
        assert "'escape/etc'" in why(status.container_statuses[0])[1]


async def test_the_socket_directory_is_the_sidecars_alone() -> None:
    async with LocalNode() as node:
        volumes = [Volume(name="socket", csi=CSIVolumeSource(driver="csi.nginx-mesh.nginx.com"))]
        mount = VolumeMount(name="socket", mount_path="/run/nginx-mesh")
        command = ["sh", "-c", "touch /run/nginx-mesh/control.sock; exec sleep 1000"]
        security = SecurityContext(run_as_user=2102)
        up = Probe(exec=ExecAction(command=["test", "-e", "/run/nginx-mesh/control.sock"]), period_seconds=1)
        sidecar = Container(
            name="proxy", command=command, volume_mounts=[mount], security_context=security, readiness_probe=up
        )
        pod = node.pod("p", app("sh", "-c", "ls /run; exec sleep 1000"), sidecar, volumes=volumes)
        await node.run(pod)
        assert (await node.exec(pod, "ls", "/run/nginx-mesh", container="proxy")) == (0, "control.sock\n")
        assert node.logs(pod) == ""
        directory = node.paths.pod_socket_dir(pod.metadata.uid)
        assert (directory.stat().st_mode & 0o777, directory.stat().st_uid) == (0o700, 2102)
        assert (directory / "control.sock").exists()


async def test_images_of_the_mesh_run_from_their_own_root() -> None:
    # The host's /usr will do as a root file system: it has bin, lib and lib64.
    async with LocalNode(images={"nginx-mesh/sidecar": Path("/usr")}) as node:
        container = Container(name="app", image="nginx-mesh/sidecar:1", command=["/bin/sh", "-c", "ls -d /*"])
        pod = node.pod("p", container, restart_policy="Never")
        seen = set((await node.finish(pod)).split())
        assert {"/bin", "/share", "/proc", "/dev", "/etc"} <= seen
        assert not {"/usr", "/root", "/opt"} & seen


# What it is kept from


async def test_containers_are_unprivileged_by_default() -> None:
    async with LocalNode() as node:
        show = "id -u; id -g; grep -E '^(Cap(Eff|Prm|Inh|Bnd|Amb)|NoNewPrivs)' /proc/self/status"
        output = await node.finish(node.pod("p", app("sh", "-c", show), restart_policy="Never"))
        lines = output.split("\n")
        assert lines[:2] == ["65534", "65534"]
        facts = dict(line.split(":\t") for line in lines[2:] if line)
        assert facts.pop("NoNewPrivs") == "1"
        assert len(facts) == 5
        assert set(facts.values()) == {"0" * 16}


async def test_root_has_only_the_capabilities_it_was_given_and_changes_nothing_of_the_host() -> None:
    async with LocalNode() as node:
        attack = """
            grep CapEff /proc/self/status
            ip link add probe type dummy 2>/dev/null; ip addr add 192.0.2.1/32 dev lo && echo may-configure
            echo x > /etc/nginx-mesh-was-here; echo core > /proc/sys/kernel/core_pattern; cat /proc/1/environ
            ls /proc/1/root; mount -t tmpfs none /mnt; mknod /dev/sda b 8 0; kill -9 1; nsenter -t 1 -m true
            echo survived
        """
        container = app("sh", "-c", attack, security_context=as_root("NET_ADMIN"))
        output = await node.finish(node.pod("p", container, restart_policy="Never"))
        assert f"CapEff:\t{1 << 12:016x}" in output
        assert "may-configure" in output
        assert output.count("ermission denied") >= 3
        assert "survived" in output
        assert not Path("/etc/nginx-mesh-was-here").exists()

        greedy = node.pod("greedy", app(*SLEEP, security_context=as_root("SYS_ADMIN")))
        await node.kubelet.run_pod(greedy)
        status = await node.wait(greedy, lambda s: why(s.container_statuses[0])[0] == "CreateContainerConfigError")
        assert (
            "spec.containers[0].securityContext.capabilities.add: 'SYS_ADMIN'" in why(status.container_statuses[0])[1]
        )


async def test_what_is_private_on_the_host_is_hidden_even_from_root() -> None:
    async with LocalNode() as node:
        others = Path("/var/lib/nginx-mesh") / node.name
        others.mkdir(parents=True)
        try:
            hidden = ["/root", "/run", "/tmp", str(node.root), str(others.parent), "/sys/fs/cgroup"]
            command = ["sh", "-c", f"for d in {' '.join(hidden)}; do ls -A $d; done 2>/dev/null; ls /etc/hostname"]
            pod = node.pod("p", app(*command, security_context=as_root()), restart_policy="Never")
            assert (await node.finish(pod)).split() == ["/etc/hostname"]
        finally:
            others.rmdir()
            with contextlib.suppress(OSError):
                others.parent.rmdir()


async def test_containers_do_not_see_each_others_processes() -> None:
    async with LocalNode() as node:
        one = node.pod("one", app("sleep", "4711"), Container(name="second", command=SLEEP))
        two = node.pod("two", app(*SLEEP))
        await node.run(one, two)
        for pod, container in ((two, "app"), (one, "second")):
            assert "4711" not in (await node.exec(pod, "sh", "-c", "cat /proc/[0-9]*/cmdline", container=container))[1]
            await node.exec(pod, "sh", "-c", "kill -9 -1", container=container)
        assert (await node.exec(one, "true"))[0] == 0


# Starting and ending


async def test_init_containers_then_the_sidecar_then_the_others() -> None:
    async with LocalNode() as node:
        volumes = [Volume(name="v", empty_dir=EmptyDirVolumeSource())]
        mounts = [VolumeMount(name="v", mount_path="/v")]

        def step(name: str, script: str, **fields: object) -> Container:
            return Container(name=name, command=["sh", "-c", script], volume_mounts=mounts, **fields)  # type: ignore[arg-type]

        probe = Probe(exec=ExecAction(command=["test", "-e", "/v/ready"]))
        sidecar_script = (
            "echo sidecar >> /v/log; sleep 0.5; echo sidecar-ready >> /v/log; touch /v/ready; exec sleep 100"
        )
        pod = node.pod(
            "p",
            step("app", "echo app >> /v/log; exec sleep 100"),
            step(SIDECAR_CONTAINER, sidecar_script, readiness_probe=probe),
            init_containers=[step("a", "sleep 0.3; echo a >> /v/log"), step("b", "echo b >> /v/log")],
            volumes=volumes,
        )
        await node.run(pod)
        assert await node.exec(pod, "cat", "/v/log") == (0, "a\nb\nsidecar\nsidecar-ready\napp\n")
        initialized = [s for _, s in node.history if s.conditions[1].status == "True"]
        assert initialized and all(why(s.init_container_statuses[1])[0] == "Completed" for s in initialized)


async def test_a_failed_init_container_keeps_the_rest_from_starting() -> None:
    async with LocalNode() as node:
        failing = Container(name="setup", command=["sh", "-c", "exit 9"])
        once = node.pod("once", app("echo", "no"), init_containers=[failing], restart_policy="Never")
        again = node.pod("again", app("echo", "no"), init_containers=[failing])
        for pod in (once, again):
            await node.kubelet.run_pod(pod)
        status = await node.wait(once, lambda s: s.phase == "Failed")
        assert exit_code(status.init_container_statuses[0]) == 9
        status = await node.wait(again, lambda s: s.init_container_statuses[0].restart_count >= 2)
        assert status.phase == "Pending"
        assert node.logs(once, "app") == node.logs(again, "app") == ""


async def test_exit_code_and_output_of_a_pod_that_ends() -> None:
    async with LocalNode() as node:
        before = rfc3339(time.time())
        pod = node.pod("p", app("sh", "-c", "echo out; echo err >&2; sleep 1.1; exit 3"), restart_policy="Never")
        await node.kubelet.run_pod(pod)
        status = await node.wait(pod, lambda s: s.phase == "Failed")
        ended = status.container_statuses[0].state.terminated
        assert ended is not None and (ended.reason, ended.exit_code) == ("Error", 3)
        assert before <= ended.started_at < ended.finished_at <= rfc3339(time.time())
        assert node.logs(pod) == "out\nerr\n"


async def test_restarts_back_off_and_say_why() -> None:
    async with LocalNode() as node:
        crashing = node.pod("crashing", app("sh", "-c", "exit 7"))
        missing = node.pod("missing", app("no-such-program"))
        for pod in (crashing, missing):
            await node.kubelet.run_pod(pod)
        status = await node.wait(crashing, lambda s: why(s.container_statuses[0])[0] == "CrashLoopBackOff")
        assert "exited with 7" in why(status.container_statuses[0])[1]
        status = await node.wait(crashing, lambda s: s.container_statuses[0].restart_count >= 3)
        last = status.container_statuses[0].last_state.terminated
        assert last is not None and last.exit_code == 7
        assert status.phase == "Running" and not status.ready
        status = await node.wait(missing, lambda s: why(s.container_statuses[0])[0] == "CrashLoopBackOff")
        assert "no-such-program: executable file not found in $PATH" in why(status.container_statuses[0])[1]
        assert not any(s.ready for key, s in node.history if key == missing.key)


async def test_an_image_without_a_command_is_refused_by_field() -> None:
    async with LocalNode() as node:
        pod = node.pod("p", Container(name="app", image="redis:7"))
        await node.kubelet.run_pod(pod)
        status = await node.wait(pod, lambda s: why(s.container_statuses[0])[0] == "ImageNotRunnable")
        assert why(status.container_statuses[0])[1].startswith("spec.containers[0].command:")
        assert "'redis:7'" in why(status.container_statuses[0])[1]


async def test_a_job_with_a_sidecar_completes() -> None:
    async with LocalNode() as node:
        sidecar = Container(name=SIDECAR_CONTAINER, command=SLEEP)
        pod = node.pod("job", app("echo", "done"), sidecar, restart_policy="OnFailure")
        assert await node.finish(pod) == "done\n"
        assert processes_in(node, pod) == []


async def test_stopping_ends_the_apps_before_the_sidecar_and_leaves_nothing() -> None:
    async with LocalNode() as node:
        volumes = [Volume(name="v", empty_dir=EmptyDirVolumeSource())]
        mounts = [VolumeMount(name="v", mount_path="/v")]
        trap = "trap 'echo {0} >> /v/log; sleep 0.3; echo {0}-end >> /v/log; exit 0' {1}; while :; do sleep 0.05; done"
        scripts = {"app": trap.format("app", "TERM"), SIDECAR_CONTAINER: trap.format("sidecar", "QUIT")}
        containers = [
            Container(name=name, command=["sh", "-c", script], volume_mounts=mounts) for name, script in scripts.items()
        ]
        pod = node.pod("p", *containers, volumes=volumes)
        await node.run(pod)
        assert (await node.exec(pod, "sh", "-c", "setsid -f sleep 1234 >/dev/null 2>&1"))[0] == 0
        log = node.paths.pod_disk(pod.metadata.uid) / "volumes/v/log"
        with log.open("w+") as lines:
            log.chmod(0o666)
            await node.kubelet.stop_pod(pod.key, 10)
            assert lines.read() == "app\napp-end\nsidecar\nsidecar-end\n"
        assert any(not status.ready for _, status in node.history[-3:])
        assert not netns.exists(node.paths.pod_netns(pod.metadata.uid))
        assert subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.count("\n") == 1
        for directory in (node.paths.pods, node.paths.pod_disks, node.paths.sockets):
            assert list(directory.iterdir()) == []
        assert [entry.name for entry in node.paths.logs.iterdir()] == ["dns.log"]


async def test_what_ignores_sigterm_is_killed_after_its_grace_which_can_be_cut_short() -> None:
    async with LocalNode() as node:
        stubborn = app("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
        one, two = node.pod("one", stubborn), node.pod("two", stubborn)
        await node.run(one, two)
        await asyncio.sleep(0.3)
        loop = asyncio.get_running_loop()
        start = loop.time()
        await node.kubelet.stop_pod(one.key, 1)
        assert 1 <= loop.time() - start < 4
        slow = asyncio.create_task(node.kubelet.stop_pod(two.key, 1000))
        await asyncio.sleep(0.2)
        start = loop.time()
        await node.kubelet.stop_pod(two.key, 0)
        await slow
        assert loop.time() - start < 3


# Probes


async def test_readiness_follows_the_probe() -> None:
    async with LocalNode() as node:
        server = python(
            "import http.server, os\n"
            "class H(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self): self.send_response(204 if os.path.exists('/tmp/ok') else 503); self.end_headers()\n"
            "http.server.HTTPServer(('', 8080), H).serve_forever()"
        )
        probe = Probe(http_get=HTTPGetAction(port=8080, path="/h"), period_seconds=1, failure_threshold=1)
        pod = node.pod("p", app(*server, readiness_probe=probe))
        await node.kubelet.run_pod(pod)
        await node.probe_failure(pod, "statuscode: 503")
        assert not node.statuses[pod.key].ready
        await node.exec(pod, "touch", "/tmp/ok")
        await node.wait(pod, lambda s: s.ready)
        await node.exec(pod, "rm", "/tmp/ok")
        await node.wait(pod, lambda s: not s.ready)


async def test_liveness_restarts_and_a_startup_probe_holds_it_back() -> None:
    async with LocalNode() as node:
        alive = Probe(exec=ExecAction(command=["test", "-e", "/tmp/alive"]), period_seconds=1, failure_threshold=2)
        startup = Probe(exec=ExecAction(command=["test", "-e", "/tmp/alive"]), period_seconds=1, failure_threshold=30)
        script = "sleep 2.5; touch /tmp/alive; exec sleep 1000"
        pod = node.pod("p", app("sh", "-c", script, liveness_probe=alive, startup_probe=startup))
        await node.run(pod)
        assert node.statuses[pod.key].container_statuses[0].restart_count == 0
        held_back = [s.container_statuses[0] for _, s in node.history if s.container_statuses[0].state.running]
        assert [status.started for status in held_back] == sorted(status.started for status in held_back)
        assert (held_back[0].started, held_back[-1].started) == (False, True)
        await node.exec(pod, "rm", "/tmp/alive")
        status = await node.wait(pod, lambda s: s.container_statuses[0].restart_count == 1)
        assert not status.ready


async def test_grpc_health_probe() -> None:
    async with LocalNode() as node:
        server = python(
            "import grpc, concurrent.futures as f, time\n"
            "def check(request, context): return b'\\x08\\x01' if request == b'\\x0a\\x02db' else b'\\x08\\x02'\n"
            "h = grpc.method_handlers_generic_handler('grpc.health.v1.Health',"
            " {'Check': grpc.unary_unary_rpc_method_handler(check)})\n"
            "s = grpc.server(f.ThreadPoolExecutor(2), handlers=[h]); s.add_insecure_port('0.0.0.0:9000'); s.start()\n"
            "time.sleep(1000)"
        )
        good = Probe(grpc=GRPCAction(port=9000, service="db"), period_seconds=1)
        bad = Probe(grpc=GRPCAction(port=9000, service="other"), period_seconds=1)
        serving, not_serving = (node.pod(n, app(*server, readiness_probe=p)) for n, p in (("good", good), ("bad", bad)))
        await node.kubelet.run_pod(not_serving)
        await node.run(serving)
        await node.probe_failure(not_serving, "not SERVING")


# Commands and logs


async def test_exec_runs_with_the_containers_rights_and_reports_the_exit_code() -> None:
    async with LocalNode() as node:
        pod = node.pod("p", app(*SLEEP, env=[EnvVar(name="MINE", value="yes")]))
        await node.run(pod)
        assert await node.exec(pod, "sh", "-c", "echo $MINE; id -u; exit 5") == (5, "yes\n65534\n")
        code, output = await node.exec(pod, "nothing-there")
        assert (code, output) == (127, "exec: nothing-there: executable file not found in $PATH\n")
        assert (await node.exec(pod, "sh", "-c", "kill -9 $$"))[0] == 137
        with pytest.raises(NotRunningError):
            await node.exec(pod, "true", container="other")
        hanging = asyncio.create_task(node.exec(pod, "sleep", "4713"))
        await asyncio.sleep(0.5)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        await asyncio.sleep(0.2)
        assert "4713" not in (await node.exec(pod, "sh", "-c", "cat /proc/[0-9]*/cmdline"))[1]


async def test_exec_with_a_terminal() -> None:
    async with LocalNode() as node:
        pod = node.pod("p", app(*SLEEP))
        await node.run(pod)
        ours, theirs = os.openpty()
        argv = ["sh", "-c", "test -t 0 && echo on $(tty >/dev/null; ps -o tpgid= -p $$ | tr -d ' ') $$ > /dev/tty"]
        assert await node.kubelet.exec(pod.key, "", argv, theirs, theirs, theirs, tty=True) == 0
        word, group, own = os.read(ours, 1000).split()
        assert word == b"on" and group == own
        os.close(ours)
        os.close(theirs)


async def test_logs_stay_small_and_their_writers_undisturbed() -> None:
    async with LocalNode(log_bytes=20_000, log_check_seconds=0.2) as node:
        pod = node.pod("p", app("sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.0005; done"))
        await node.run(pod)
        path = node.log_path(pod, "app")
        previous = path.with_name("app.log.1")
        await eventually(previous.exists, "the log is rotated", 15)
        await asyncio.sleep(0.5)
        assert path.stat().st_size < 200_000
        assert path.read_text().startswith("line ") or path.stat().st_size == 0
        assert node.statuses[pod.key].ready


async def test_a_full_disk_for_logs_stops_no_one() -> None:
    async with LocalNode() as node:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(node.paths.logs)], check=True)
        try:
            code = (
                "import os, socket\n"
                "s = socket.create_server(('', 80))\n"
                "while True:\n"
                "    c, _ = s.accept()\n"
                "    try: os.write(1, b'x' * 200_000)\n"
                "    except OSError as e: c.sendall(os.strerror(e.errno).encode())\n"
                "    c.close()\n"
            )
            pod = node.pod("p", app(*python(code), readiness_probe=Probe(tcp_socket=TCPSocketAction(port=80))))
            await node.run(pod)
            for _ in range(3):
                reader, writer = await asyncio.open_connection(pod.status.ips[0], 80)
                answer = await asyncio.wait_for(reader.read(), 5)
                writer.close()
            assert answer == b"No space left on device"
            await node.kubelet.stop_pod(pod.key, 1)
        finally:
            subprocess.run(["umount", "-l", str(node.paths.logs)], check=True)


# Daemons come and go


async def test_a_daemon_killed_outright_is_not_noticed_by_pods_and_its_heir_takes_them_up() -> None:
    async with LocalNode() as node:
        probe = Probe(tcp_socket=TCPSocketAction(port=80), period_seconds=1)
        server = node.pod("server", app("python3", "-m", "http.server", "80", readiness_probe=probe))
        job = node.pod("job", app("sh", "-c", "sleep 2; exit 4"), restart_policy="Never")
        crashing = node.pod("crashing", app("sh", "-c", "sleep 1; exit 1"))
        script = Path(__file__).with_name("kubelet_daemon.py")
        pods = msgspec.json.encode([server, job, crashing])
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, str(script), node.name, str(node.root)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert daemon.stdin and daemon.stdout
        daemon.stdin.write(pods + b"\n")
        assert await asyncio.wait_for(daemon.stdout.readline(), 20) == b"ready\n"
        daemon.kill()
        await daemon.wait()
        await asyncio.sleep(1)
        killed = rfc3339(time.time())

        before = processes_in(node, server)
        assert any("http.server" in line for line in before)
        _, writer = await asyncio.open_connection(server.status.ips[0], 80)
        writer.close()
        await asyncio.sleep(2.5)

        ready = msgspec.structs.replace(
            server,
            status=msgspec.convert(
                {**msgspec.to_builtins(server.status), "containerStatuses": [{"name": "app", "ready": True}]},
                type(server.status),
            ),
        )
        heir = node.kubelet = node.new_kubelet()
        await heir.start([ready, job, crashing])
        await node.wait(job, lambda s: s.phase == "Failed" and exit_code(s.container_statuses[0]) == 4)
        await node.wait(crashing, lambda s: s.container_statuses[0].restart_count >= 1)
        await node.wait(server, lambda s: s.ready)
        assert all(status.ready for key, status in node.history if key == server.key)
        running = {s.container_statuses[0].state.running for key, s in node.history if key == server.key}
        assert len(running) == 1 and all(state.started_at < killed for state in running if state)
        assert processes_in(node, server) == before
        await heir.stop_pod(server.key, 5)
        assert processes_in(node, server) == []


async def test_an_heir_ends_what_should_not_be() -> None:
    async with LocalNode() as node:
        kept, stranger = node.pod("kept", app(*SLEEP)), node.pod("stranger", app(*SLEEP))
        await node.run(kept, stranger)
        await node.kubelet.close()
        node.kubelet = node.new_kubelet()
        await node.kubelet.start([kept])
        assert processes_in(node, stranger) == []
        assert not node.paths.pod_dir(stranger.metadata.uid).exists()
        assert await node.exec(kept, "true") == (0, "")


async def test_a_pod_whose_network_was_lost_begins_from_the_start() -> None:
    async with LocalNode() as node:
        setup = Container(name="setup", command=["true"])
        pod = node.pod("p", app(*SLEEP), init_containers=[setup])
        await node.run(pod)
        await node.kubelet.close()
        # After a reboot the records may still be there, but nothing that they speak of.
        netns.delete(node.paths.pod_netns(pod.metadata.uid))
        node.history.clear()
        node.statuses.clear()
        node.kubelet = node.new_kubelet()
        await node.kubelet.start([pod])
        await node.wait(pod, lambda s: s.ready)
        states = [s.init_container_statuses[0].state for _, s in node.history]
        for name in ("waiting", "running", "terminated"):
            assert any(getattr(state, name) for state in states), name
        assert len([line for line in processes_in(node, pod) if line.startswith("/bin/sh -c")]) == 1


async def test_a_disk_that_holds_no_writable_layer_is_replaced_by_memory() -> None:
    async with LocalNode() as node:
        layers = [node.root / name for name in ("lower", "upper", "work")]
        for layer in layers:
            layer.mkdir()
        options = "lowerdir={},upperdir={},workdir={}".format(*layers)
        # An overlay cannot be the upper layer of another: so it is inside a container.
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", str(node.paths.pod_disks)], check=True)
        try:
            pod = node.pod("p", app("sh", "-c", "touch /tmp/mine && exec sleep 1000"))
            await node.run(pod)
            assert await node.exec(pod, "ls", "/tmp") == (0, "mine\n")
            await node.kubelet.stop_pod(pod.key, 1)
        finally:
            subprocess.run(["umount", "-l", str(node.paths.pod_disks)], check=True)
            for layer in layers:
                shutil.rmtree(layer)


async def test_disks_mounted_below_the_hosts_root_are_seen_but_not_written() -> None:
    async with LocalNode() as node:
        point = Path("/mnt") / node.name
        source = Path("/var/tmp") / node.name
        point.mkdir()
        source.mkdir(mode=0o777)
        (source / "file").write_text("seen")
        subprocess.run(["mount", "--bind", str(source), str(point)], check=True)
        try:
            command = ["sh", "-c", f"cat {point}/file; touch {point}/other; touch {source}/other"]
            pod = node.pod("p", app(*command, security_context=as_root("CHOWN")), restart_policy="Never")
            await node.kubelet.run_pod(pod)
            await node.wait(pod, lambda s: s.phase in ("Succeeded", "Failed"))
            assert node.logs(pod).startswith("seen")
            assert "Read-only file system" in node.logs(pod)
            assert [path.name for path in source.iterdir()] == ["file"]
        finally:
            subprocess.run(["umount", "-l", str(point)], check=True)
            shutil.rmtree(source)
            point.rmdir()


async def test_destroying_leaves_nothing_even_when_the_records_are_gone() -> None:
    async with LocalNode() as node:
        pods = [node.pod(f"p{number}", app("sh", "-c", "setsid -f sleep 999; exec sleep 1000")) for number in range(3)]
        await node.run(*pods)
        named = {
            netns.namespace_id(netns.path(name)) for name in netns.names() if name.startswith(node.paths.node_netns)
        }

        def processes_inside() -> list[int]:
            found = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
            return [int(entry.name) for entry in found if netns.namespace_id(entry / "ns/net") in named]

        # A pod runs before its shell has started the second process.
        await eventually(lambda: len(processes_inside()) >= 3 * 3 + 1, "three processes in each pod")
        inside = processes_inside()
        await node.kubelet.close()
        # Half broken: one pod's namespace has no name any more, another's records are gone.
        netns.delete(node.paths.pod_netns(pods[0].metadata.uid))
        (node.paths.pod_dir(pods[1].metadata.uid) / "containers/app/processes.json").unlink()
        await node.destroy()
        assert not node.paths.run.exists() and not node.paths.state.exists()
        assert [name for name in netns.names() if name.startswith(node.paths.node_netns)] == []
        # A process that ended has no namespace any more, even if nobody asked yet how it ended.
        assert [pid for pid in inside if pid != os.getpid() and netns.namespace_id(Path(f"/proc/{pid}/ns/net"))] == []
        assert str(node.root) not in Path("/proc/self/mountinfo").read_text()


async def test_two_meshes_with_the_same_addresses_do_not_meet() -> None:
    async with LocalNode() as one:
        server = one.pod("server", app("python3", "-m", "http.server", "80"))
        await one.run(server)
        async with LocalNode() as two:
            twin = two.pod("server", app(*SLEEP))
            assert twin.status.ips == server.status.ips
            await two.run(twin)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(twin.status.ips[0], 80)
        assert netns.exists(one.paths.node_netns)


async def test_pods_that_come_and_go_leave_no_descriptors_or_threads_behind() -> None:
    async with LocalNode() as node:

        async def cycle() -> tuple[int, int]:
            pods = [node.pod(f"p{number}", app(*SLEEP)) for number in range(3)]
            await node.run(*pods)
            await asyncio.gather(*(node.kubelet.stop_pod(pod.key, 1) for pod in pods))
            return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

        await cycle()
        first = await cycle()
        for _ in range(2):
            last = await cycle()
        assert last[0] <= first[0]
        # The event loop's pool may still grow up to its size.
        assert last[1] <= 8
