"""One container of a pod, from its first start to its last exit: restarts, back-off, probes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from nginx_mesh.api.containers import Container, Probe
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.podstatus import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
)
from nginx_mesh.api.times import rfc3339
from nginx_mesh.local.paths import MeshPaths

from .container import Attempt, ContainerDir, Exit, RunningContainer, run_in_container
from .launchspec import NodeFacts, launch_spec
from .probes import ProbeCounter, ProbeError, eager_delays, run_probe
from .restarts import Backoff, BackoffSettings, should_restart
from .volumes import ConfigError, Lookup, MountedVolume

# How long to wait before looking again for a missing ConfigMap, Secret or key, unless a change is announced earlier.
_RETRY_SECONDS = 1.0
# After this time at most, a shortened grace period takes effect.
_DEADLINE_POLL_SECONDS = 0.5


class NodeContext(msgspec.Struct, kw_only=True):
    """What the workers of all pods share. `changed` is notified whenever a ConfigMap or Secret changes."""

    paths: MeshPaths
    facts: NodeFacts
    backoff: BackoffSettings
    lookup: Lookup
    changed: asyncio.Condition

    async def wait_for_change(self) -> None:
        """Wait for a change of a ConfigMap or Secret, or until it is time to try again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_SECONDS), self.changed:
                await self.changed.wait()


class ContainerWorker:
    """Runs one container. `on_change` is called whenever `status`, its present status, has changed.

    `on_probe_failure` is called with the reason for which a probe fails while the container is not ready; a reason that
    repeats is passed once. `policy` is the container's restartPolicy, `field` its place in the pod. `previous` is the
    status that an earlier daemon published: a container that still runs keeps its readiness across the restart of a
    daemon.
    """

    def __init__(
        self,
        node: NodeContext,
        pod: Pod,
        container: Container,
        *,
        field: str,
        policy: str,
        previous: ContainerStatus | None,
        on_change: Callable[[], None],
        on_probe_failure: Callable[[str], None],
    ) -> None:
        self.container = container
        self.volumes: Mapping[str, MountedVolume] = {}
        self.directory = ContainerDir(node.paths.pod_dir(pod.metadata.uid) / "containers" / container.name)
        self.ready = asyncio.Event()
        self._node = node
        self._pod = pod
        self._field = field
        self._policy = policy
        self._on_change = on_change
        self._on_probe_failure = on_probe_failure
        self._probe_failure = ""
        self._process: RunningContainer | None = None
        attempt = self.directory.attempt()
        self._backoff = Backoff(node.backoff, attempt.delay if attempt else None)
        self._restarts = attempt.restarts if attempt else 0
        self._started_at = attempt.started_at if attempt else 0.0
        runs = self.directory.running()
        self._was_ready = runs and previous is not None and previous.ready
        if self._was_ready:
            self.ready.set()
        self._last_state = previous.last_state if attempt and previous else ContainerState()
        last = self.ended()
        self.status = ContainerStatus(
            name=container.name,
            image=container.image,
            ready=self._was_ready,
            started=self._was_ready or (runs and container.startup_probe is None),
            restart_count=self._restarts,
            state=self._running() if runs else self._terminated(last) if last else _waiting("ContainerCreating"),
            last_state=self._last_state,
        )

    @property
    def log_path(self) -> Path:
        """The file with the output of the container, stdout and stderr."""
        return self._node.paths.pod_logs(self._pod.metadata.uid) / f"{self.container.name}.log"

    def ended(self) -> Exit | None:
        """How the container ended, if it has ended and is not to run again."""
        last = None if self.directory.running() else self.directory.exit()
        return last if last and not should_restart(self._policy, last.code) else None

    def wait_for(self, reason: str, message: str = "") -> None:
        """Publish why the container cannot start yet."""
        self._publish(state=_waiting(reason, message), ready=False, started=False)

    async def run(self) -> int:
        """Run the container until it has ended for good; returns its exit code.

        Cancelling leaves the process as it is: `stop` it or `release` it then.
        """
        process = await RunningContainer.adopt(self.directory)
        last = None if process else self.directory.exit()
        while True:
            if last is None:
                process = process or await self._launch()
                last = await self._supervise(process)
                process = None
            if not should_restart(self._policy, last.code):
                self._publish_exit(last)
                return last.code
            self._last_state = self._terminated(last)
            delay = self._backoff.next(_now() - self._started_at)
            if delay:
                why = last.failure or f"the last run exited with {last.code}"
                self.wait_for("CrashLoopBackOff", f"back-off {delay:g}s restarting failed container: {why}")
            await asyncio.sleep(delay)
            self._restarts += 1
            last = None

    async def stop(self, number: signal.Signals, seconds_left: Callable[[], float], *, main_only: bool = False) -> None:
        """Send a signal to the container, and kill it when no seconds are left. `run` must have been cancelled.

        `main_only` sends the signal to the command's first process, and not to all of its group.
        """
        process = self._process or await RunningContainer.adopt(self.directory)
        if process is not None:
            self._process = process
            await self._end(process, number, seconds_left, main_only)
            self._publish_exit(await process.wait())
        self.release()

    def release(self) -> None:
        """Stop supervising the container, which continues to run."""
        if self._process is not None:
            self._process.close()
            self._process = None

    async def execute(self, argv: list[str], stdin: int, stdout: int, stderr: int, tty: bool = False) -> int:
        """Run another command in the container; returns its exit code. Raises ProcessLookupError when it is not up."""
        pid = self.directory.main_pid()
        if pid is None:
            raise ProcessLookupError(f"container {self.container.name!r} is not running")
        return await run_in_container(self.directory, pid, argv, stdin, stdout, stderr, tty)

    async def _launch(self) -> RunningContainer:
        while True:
            try:
                spec = launch_spec(
                    self._pod,
                    self.container,
                    self._field,
                    node=self._node.facts,
                    paths=self._node.paths,
                    volumes=self.volumes,
                    lookup=self._node.lookup,
                )
                self._started_at = _now()
                attempt = Attempt(restarts=self._restarts, started_at=self._started_at, delay=self._backoff.delay)
                paths = self._node.paths
                namespace = paths.node_netns if self._pod.spec.host_network else paths.pod_netns(self._pod.metadata.uid)
                return await RunningContainer.start(self.directory, spec, attempt, namespace, self.log_path)
            except ConfigError as error:
                self.wait_for(error.reason, str(error))
            except BlockingIOError:
                # An earlier daemon has just started it.
                if (process := await RunningContainer.adopt(self.directory)) is not None:
                    return process
            except OSError as error:
                self.wait_for("RunContainerError", str(error))
            await self._node.wait_for_change()

    async def _supervise(self, process: RunningContainer) -> Exit:
        self._process = process
        if process.started:
            self._probe_failure = ""
            if not self._was_ready:
                self._publish(state=self._running(), ready=False, started=self.container.startup_probe is None)
            probing = asyncio.create_task(self._probe(process))
            try:
                await process.wait()
            finally:
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)
        last = await process.wait()
        self._was_ready = False
        self.release()
        return last

    async def _probe(self, process: RunningContainer) -> None:
        """Run the probes: set `ready`, and end the container when its startup or liveness probe fails."""
        container = self.container
        startup = container.startup_probe
        if startup and not self._was_ready and not await self._watch(startup, "Startup", process, until_success=True):
            return
        self._publish(started=True)
        readiness = container.readiness_probe
        if readiness is None:
            self._set_ready(True)
        watches = []
        if readiness is not None:
            watches.append(self._watch(readiness, "Readiness", process))
        if container.liveness_probe is not None:
            watches.append(self._watch(container.liveness_probe, "Liveness", process))
        await asyncio.gather(*watches)

    async def _watch(self, probe: Probe, kind: str, process: RunningContainer, until_success: bool = False) -> bool:
        """Run one probe repeatedly, and act on its verdict. Returns False when it has ended the container."""
        eager = kind != "Liveness" and not self._was_ready
        counter = ProbeCounter(probe, verdict=self._was_ready or kind == "Liveness")
        period = max(1, probe.period_seconds)
        pauses = eager_delays(period) if eager else []
        failures = 0
        await asyncio.sleep(0 if self._was_ready else probe.initial_delay_seconds)
        while True:
            problem = await self._run_probe(probe)
            # Failures of the extra attempts at the beginning do not count.
            if problem is None or not pauses:
                before = counter.verdict
                counter.record(problem is None)
                failures = 0 if problem is None else failures + 1
                if kind == "Readiness" and counter.verdict != before:
                    self._set_ready(counter.verdict)
            if until_success and counter.verdict:
                return True
            if problem is not None:
                message = f"{kind} probe failed: {problem}"
                if kind != "Readiness" and failures >= probe.failure_threshold:
                    await self._end(process, signal.SIGTERM, countdown(self._pod.spec.termination_grace_period_seconds))
                    return False
                if not self.status.ready and message != self._probe_failure:
                    self._probe_failure = message
                    self._on_probe_failure(message)
            if counter.verdict:
                pauses = []
            await asyncio.sleep(pauses.pop(0) if pauses else period)

    async def _run_probe(self, probe: Probe) -> str | None:
        """Why the probe fails, None when it succeeds."""
        address = next(iter(self._pod.status.ips), "")
        null = subprocess.DEVNULL
        try:
            await run_probe(probe, self.container, address, lambda argv: self.execute(argv, null, null, null))
        except ProbeError as error:
            return str(error)
        return None

    async def _end(
        self,
        process: RunningContainer,
        number: signal.Signals,
        seconds_left: Callable[[], float],
        main_only: bool = False,
    ) -> None:
        if seconds_left() > 0:
            if main_only:
                process.signal_main(number)
            else:
                process.terminate(number)
        while (seconds := seconds_left()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, _DEADLINE_POLL_SECONDS)):
                    await process.wait()
                    return
        process.kill()
        await process.wait()

    def _set_ready(self, ready: bool) -> None:
        self._probe_failure = ""
        self._publish(ready=ready)

    def _publish_exit(self, last: Exit) -> None:
        self._publish(state=self._terminated(last), ready=False, started=False)

    def _running(self) -> ContainerState:
        return ContainerState(running=ContainerStateRunning(started_at=self._start_time()))

    def _terminated(self, last: Exit) -> ContainerState:
        return ContainerState(
            terminated=ContainerStateTerminated(
                exit_code=last.code,
                reason=_exit_reason(last),
                message=last.failure,
                started_at=self._start_time(),
                finished_at=rfc3339(time.time() if last.ended is None else last.ended),
            )
        )

    def _start_time(self) -> str:
        started = self.directory.last_start()
        return "" if started is None else rfc3339(started)

    def _publish(
        self,
        *,
        state: ContainerState | None = None,
        ready: bool | None = None,
        started: bool | None = None,
    ) -> None:
        new = msgspec.structs.replace(
            self.status,
            ready=self.status.ready if ready is None else ready,
            started=self.status.started if started is None else started,
            restart_count=self._restarts,
            state=state or self.status.state,
            last_state=self._last_state,
        )
        if new.ready:
            self.ready.set()
        else:
            self.ready.clear()
        if new != self.status:
            self.status = new
            self._on_change()


def countdown(seconds: float) -> Callable[[], float]:
    """A function that returns how many of these seconds are left."""
    deadline = time.monotonic() + seconds
    return lambda: max(0.0, deadline - time.monotonic())


def _waiting(reason: str, message: str = "") -> ContainerState:
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))


def _exit_reason(last: Exit) -> str:
    if last.failure:
        return "StartError"
    return "Error" if last.code else "Completed"


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
