"""`make demo`: the sample application of examples/demo in a local mesh, and a summary of what happened.

The script starts the mesh in permissive mode, lets traffic run, makes the mesh strict while traffic runs, and cleans
up; with KEEP=1 it leaves the mesh running. It uses only `nginx-meshctl local`, so every step can be repeated by hand.

The exit code is 0 when everything was as expected, 1 when something was not, and 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nginx_mesh.cli.local.mesh import LocalMesh

DEMO = Path(__file__).parents[1] / "examples" / "demo"
STRICT = DEMO / "strict.yaml"
MESHCTL = Path(sys.executable).with_name("nginx-meshctl")
TRUST_DOMAIN = "example.org"
MESHED = ("shop", "data")
VERSIONS = {"v1", "v2", "v3"}
EDGES = {
    ("driver", "front", "http"),
    ("front", "catalogue", "http"),
    ("front", "pricing", "grpc"),
    ("front", "inventory", "tcp"),
    ("front", "orders", "http"),
}
VISITOR_EDGES = {("visitor", "front", "http"), ("visitor", "inventory", "tcp")}

TRAFFIC_SECONDS = 3.0
SETTLE_SECONDS = 1.0
LOG_SECONDS = 1.2  # sidecars write their access log once a second

Edge = tuple[str, str, str]
"""The client, the server and the protocol."""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass
class Calls:
    """The results of the calls of one edge. `callers` are the SPIFFE IDs that the server's application received."""

    calls: int
    ok: int
    p50_ms: float | None
    p99_ms: float | None
    callers: Mapping[str, int]
    versions: Mapping[str, int]
    errors: Mapping[str, int]


@dataclass
class VerifiedIds:
    """The SPIFFE IDs that the sidecars on both sides of an edge verified: each one verifies the other side's."""

    by_client: set[str] = field(default_factory=set)
    by_server: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Addresses:
    """The owners of IP addresses: the applications of pods, and Services."""

    pods: Mapping[str, str]
    services: Mapping[str, str]


def spiffe_id(name: str) -> str:
    """The identity of an application of the demo, which runs as the service account of the same name."""
    namespace = "data" if name in ("inventory", "orders") else "shop"
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{name}"


def read_report(document: Mapping[str, Any]) -> dict[Edge, Calls]:
    """The calls by edge in the response to `/report` of a driver."""
    names = Calls.__dataclass_fields__
    return {
        (edge["from"], edge["to"], edge["protocol"]): Calls(**{name: edge[name] for name in names})
        for edge in document["edges"]
    }


def identities(logs: Mapping[str, Iterable[str]], addresses: Addresses) -> dict[tuple[str, str], VerifiedIds]:
    """The SPIFFE IDs verified on each edge (client, server), from the sidecars' JSON access logs by application."""
    found: dict[tuple[str, str], VerifiedIds] = {}
    for owner, lines in logs.items():
        for line in lines:
            try:
                entry = json.loads(line)
                destination, client = entry["destination"].rpartition(":")[0].strip("[]"), entry["client"]
                server_id, client_id = entry["upstream_id"], entry["client_id"]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a line of the error log, which is in the same stream
            if destination in addresses.services:
                if server_id:
                    found.setdefault((owner, addresses.services[destination]), VerifiedIds()).by_client.add(server_id)
            elif client in addresses.pods and client_id:
                found.setdefault((addresses.pods[client], owner), VerifiedIds()).by_server.add(client_id)
    return found


def mesh_faults(report: Mapping[Edge, Calls], verified: Mapping[tuple[str, str], VerifiedIds]) -> Iterator[str]:
    """What was not as expected about the mesh's own traffic."""
    for edge in sorted(EDGES):
        source, target, protocol = edge
        what = f"{source} → {target}"
        calls = report.get(edge)
        if calls is None or not calls.calls:
            yield f"{what}: no calls"
            continue
        for error, count in calls.errors.items():
            yield f"{what}: {count} of {calls.calls} calls failed: {error}"
        both = verified.get((source, target), VerifiedIds())
        if both.by_client != {spiffe_id(target)}:
            yield f"{what}: the client's sidecar verified {_listed(both.by_client)}, not {spiffe_id(target)}"
        if both.by_server != {spiffe_id(source)}:
            yield f"{what}: the server's sidecar verified {_listed(both.by_server)}, not {spiffe_id(source)}"
        if protocol != "tcp" and calls.callers != {spiffe_id(source): calls.ok}:
            told = ", ".join(f"{count} times {caller}" for caller, count in calls.callers.items())
            yield f"{what}: the application was told {told or 'nobody'}, not {calls.ok} times {spiffe_id(source)}"
    versions = set(report["front", "catalogue", "http"].versions) if ("front", "catalogue", "http") in report else set()
    if versions != VERSIONS:
        yield f"catalogue: {_listed(versions)} answered, not {_listed(VERSIONS)}"


def visitor_faults(report: Mapping[Edge, Calls], *, refused: bool) -> Iterator[str]:
    """What was not as expected about the caller outside the mesh, whose calls shall be `refused` or accepted."""
    for edge in sorted(VISITOR_EDGES):
        calls = report.get(edge)
        what = f"{edge[0]} → {edge[1]}"
        if calls is None or not calls.calls:
            yield f"{what}: no calls"
        elif refused and calls.ok:
            yield f"{what}: {calls.ok} of {calls.calls} calls were let in although the mesh is strict"
        elif not refused and calls.ok != calls.calls:
            yield f"{what}: {calls.calls - calls.ok} of {calls.calls} calls failed: {', '.join(calls.errors)}"
        elif calls.callers:
            yield f"{what}: passed for {_listed(set(calls.callers))}"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"


class Mesh:
    """The local mesh `name`, used through the command line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stream(self, *arguments: str, show: Callable[[str], None]) -> None:
        """Run a command and pass each line of its output to `show`. Raises DemoError when the command fails."""
        # In a session of its own, the command does not get the terminal's Ctrl-C and is not interrupted in its work.
        process = subprocess.Popen(
            self._command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            for line in process.stdout:
                show(line.rstrip())
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            raise
        if code:
            raise DemoError(f"nginx-meshctl local {arguments[0]} failed")

    def output(self, *arguments: str) -> str:
        """The output of a command. Raises DemoError when it fails."""
        done = subprocess.run(
            self._command(*arguments),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,
        )
        if done.returncode:
            raise DemoError(f"nginx-meshctl local {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
        return done.stdout

    def dashboard(self) -> str:
        """Start the mesh's dashboard in the background. The output of the command, or why there is no dashboard."""
        command = [str(MESHCTL), "dashboard", "--mesh", self.name, "--detach"]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, start_new_session=True
        )
        return (done.stderr if done.returncode else done.stdout).strip()

    def exists(self) -> bool:
        """Whether there is a mesh of this name."""
        return LocalMesh.named(self.name).exists()

    def report(self, workload: str, namespace: str, *, reset: bool = False) -> dict[Edge, Calls]:
        """The counts of the driver `workload`, which begins counting anew with `reset`."""
        fetch = ["python3", "/app/calls.py", "GET", "127.0.0.1:8080", f"/report{'?reset=1' if reset else ''}"]
        return read_report(json.loads(self.output("exec", f"deploy/{workload}", "-n", namespace, "--", *fetch)))

    def addresses(self) -> Addresses:
        """The addresses of pods and services."""
        pods = {
            address["ip"]: pod["metadata"]["labels"]["app"]
            for pod in self._items("pods")
            for address in pod["status"].get("podIPs", [])
        }
        services = {
            address: service["metadata"]["name"]
            for service in self._items("services")
            for address in service["spec"].get("clusterIPs") or [service["spec"].get("clusterIP", "")]
        }
        return Addresses(pods, services)

    def sidecar_logs(self) -> dict[str, list[str]]:
        """The lines that the sidecars wrote, by application."""
        logs: dict[str, list[str]] = {}
        for pod in self._items("pods"):
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            if namespace in MESHED:
                text = self.output("logs", name, "-n", namespace, "-c", "nginx-mesh-sidecar", "--tail", "2000")
                logs.setdefault(pod["metadata"]["labels"]["app"], []).extend(text.splitlines())
        return logs

    def _items(self, kind: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.output("get", kind, "-A", "-o", "json"))["items"]
        return [item for item in items if item["metadata"]["namespace"] in (*MESHED, "outside")]

    def _command(self, verb: str, *arguments: str) -> list[str]:
        return [str(MESHCTL), "local", verb, "--name", self.name, *arguments]


class Demo:
    """The steps of the demo, with output on `console`.

    `faults` collects what was not as expected. `started` is true once there may be a mesh to clean up.
    """

    def __init__(self, mesh: Mesh, console: Console) -> None:
        self.faults: list[str] = []
        self.started = False
        self._mesh = mesh
        self._console = console
        self._began = time.monotonic()

    def start(self) -> None:
        """The mesh with the sample application, in permissive mode."""
        if self._mesh.exists():
            end = f"{_shown(MESHCTL)} local down --name {self._mesh.name}"
            raise DemoError(f'there is a mesh named "{self._mesh.name}" already; to end it: {end}')
        self.started = True
        self._headline("Starting a mesh with the sample application, in permissive mode")
        self._mesh.stream(
            *("up", "-f", str(DEMO / "app"), "--mtls-mode", "permissive"),
            *("--mtls-trust-domain", TRUST_DOMAIN, "--nginx-log-format", "json"),
            show=self._progress,
        )

    def permissive(self) -> None:
        """Traffic of the mesh, and of a caller outside of the mesh, whose calls are accepted."""
        self._headline("Traffic runs")
        self._mesh.report("driver", "shop", reset=True)
        self._mesh.report("visitor", "outside", reset=True)
        time.sleep(TRAFFIC_SECONDS)
        self._show_mesh("Who called whom, and who proved to be whom")
        self._show_visitor(refused=False)

    def strict(self) -> None:
        """The same after a live change to strict. All calls of the mesh since before the change are checked."""
        self._headline("Turning the mesh strict while traffic runs")
        self._mesh.report("driver", "shop", reset=True)
        began = time.monotonic()
        self._mesh.stream("apply", "-f", str(STRICT), show=self._progress)
        self._progress(f"took {time.monotonic() - began:.1f} s")
        time.sleep(SETTLE_SECONDS)
        self._mesh.report("visitor", "outside", reset=True)
        time.sleep(TRAFFIC_SECONDS)
        self._show_mesh("The mesh's own traffic, from before the change until now")
        self._show_visitor(refused=True)

    def conclude(self) -> None:
        """Print the faults, or that there were none."""
        for fault in self.faults:
            self._console.print(Text(f"✗ {fault}", style="red"))
        if not self.faults:
            self._console.print(Text(f"✓ All of it held ({time.monotonic() - self._began:.0f} s)", style="green"))

    def suggest(self) -> None:
        """Print commands to try in the mesh that is left running."""
        sudo = "sudo " if "SUDO_USER" in os.environ else ""
        ctl, name = f"{sudo}{_shown(MESHCTL)} local", f"--name {self._mesh.name}"
        driver = f"{ctl} exec deploy/driver -n shop {name} -- python3 /app/calls.py GET"
        dashboard = self._mesh.dashboard()
        self._headline("The mesh is left running. What to try next:")
        self._console.print(Text("  # look at it in a web browser", style="dim"))
        self._console.print(Text(f"  {dashboard}", style="bold"), soft_wrap=True)
        for purpose, command in (
            ("see what runs", f"{ctl} get pods -A -o wide {name}"),
            ("look at a page as the driver", f"{driver} front /page"),
            ("see how the driver's calls went", f"{driver} 127.0.0.1:8080 /report"),
            ("read a sidecar's access log", f"{ctl} logs -f deploy/orders -n data -c nginx-mesh-sidecar {name}"),
            ("scale while traffic runs", f"{ctl} scale deploy/catalogue-v2 --replicas 4 -n shop {name}"),
            ("replace pods while traffic runs", f"{ctl} restart deploy/front -n shop {name}"),
            ("let the outsider in again", f"sed s/strict/permissive/ {_shown(STRICT)} | {ctl} apply -f - {name}"),
            (
                "end the dashboard alone",
                f"{sudo}{_shown(MESHCTL)} dashboard --stop --mesh {self._mesh.name}",
            ),
            ("end it, and its dashboard", f"{ctl} down {name}"),
        ):
            self._console.print(Text(f"  # {purpose}", style="dim"))
            self._console.print(Text(f"  {command}"), soft_wrap=True)

    def end(self) -> None:
        """Clean up, whichever steps were done."""
        self._headline("Cleaning up")
        if self._mesh.exists():
            self._mesh.stream("down", show=self._progress)

    def _show_mesh(self, title: str) -> None:
        time.sleep(LOG_SECONDS)
        report = self._mesh.report("driver", "shop")
        verified = identities(self._mesh.sidecar_logs(), self._mesh.addresses())
        table = _table(title, "client proved to be", "server proved to be")
        for edge in sorted(EDGES):
            if edge in report:
                both = verified.get(edge[:2], VerifiedIds())
                _row(table, edge, report[edge], _listed(both.by_server), _listed(both.by_client))
        self._console.print(table)
        catalogue = report.get(("front", "catalogue", "http"))
        if catalogue is not None:
            split = ", ".join(f"{version} {count}" for version, count in sorted(catalogue.versions.items()))
            self._progress(f"catalogue answered as {split}")
        self.faults += mesh_faults(report, verified)

    def _show_visitor(self, *, refused: bool) -> None:
        report = self._mesh.report("visitor", "outside")
        title = "The caller outside the mesh " + ("is refused" if refused else "is let in, and is nobody")
        table = _table(title, "error")
        for edge in sorted(VISITOR_EDGES):
            if edge in report:
                errors = Counter(dict(report[edge].errors)).most_common(1)
                _row(table, edge, report[edge], errors[0][0] if errors else "")
        self._console.print(table)
        self.faults += visitor_faults(report, refused=refused)

    def _headline(self, text: str) -> None:
        self._console.print(Text(f"\n{time.monotonic() - self._began:5.1f} s  {text}", style="bold"))

    def _progress(self, line: str) -> None:
        self._console.print(Text(f"         {line}", style="dim"), soft_wrap=True)


def _table(title: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in ("from", "to", "protocol"):
        table.add_column(name)
    for name in ("calls", "success", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for name in more:
        table.add_column(name, overflow="fold")
    return table


def _row(table: Table, edge: Edge, calls: Calls, *more: str) -> None:
    success = f"{100 * calls.ok / calls.calls:.2f}%" if calls.calls else "-"
    times = ["-" if time is None else f"{time:.1f}" for time in (calls.p50_ms, calls.p99_ms)]
    style = "red" if calls.ok == 0 else "" if calls.ok == calls.calls else "yellow"
    table.add_row(*edge, str(calls.calls), Text(success, style=style), *times, *(Text(text) for text in more))


def _shown(path: Path) -> str:
    """A path relative to the working directory where possible."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main(name: str, keep: bool) -> int:
    """Run the demo; the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    demo = Demo(Mesh(name), console)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    code = 1
    try:
        demo.start()
        demo.permissive()
        demo.strict()
        code = 1 if demo.faults else 0
    except DemoError as error:
        demo.faults.append(str(error))
    except KeyboardInterrupt:
        keep, code = False, 130
        console.print(Text("\nInterrupted", style="yellow"))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if demo.started and keep:
            demo.suggest()
        elif demo.started:
            try:
                demo.end()
            except DemoError as error:
                demo.faults.append(str(error))
                code = code or 1
        if code != 130:
            demo.conclude()
    return code


if __name__ == "__main__":
    sys.exit(main(os.environ.get("DEMO_NAME", "demo"), os.environ.get("KEEP", "") not in ("", "0")))
