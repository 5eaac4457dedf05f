"""The status of a pod, computed from the states of its containers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nginx_mesh.api.annotations import SIDECAR_CONTAINER
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.podstatus import ContainerStatus, HostIP, PodCondition, PodStatus


def pod_status(
    pod: Pod,
    *,
    initial: Sequence[ContainerStatus],
    containers: Sequence[ContainerStatus],
    ended: bool,
    terminating: bool,
    start_time: str,
    host_ip: str,
    problem: tuple[str, str] = ("", ""),
) -> PodStatus:
    """The status to publish. `ended` means that no container will run again, `problem` is a reason and a message."""
    initialized = all(_exit_code(status) == 0 for status in initial)
    phase = _phase(containers, initial, ended)
    ready = phase == "Running" and all(status.ready for status in containers) and not terminating
    why_not = _why_not_ready(containers, phase, terminating)
    return PodStatus(
        phase=phase,
        reason=problem[0],
        message=problem[1],
        host_ip=host_ip,
        host_ips=[HostIP(ip=host_ip)],
        pod_ip=next(iter(pod.status.ips), ""),
        pod_ips=pod.status.pod_ips,
        conditions=[
            PodCondition(type="PodScheduled", status="True"),
            _condition("Initialized", initialized, ("ContainersNotInitialized", "")),
            _condition("ContainersReady", ready, why_not),
            _condition("Ready", ready, why_not),
        ],
        container_statuses=list(containers),
        # An init container is ready when it has succeeded.
        init_container_statuses=[msgspec.structs.replace(status, ready=_exit_code(status) == 0) for status in initial],
        start_time=start_time,
    )


def _exit_code(status: ContainerStatus) -> int | None:
    """The exit code of a container that has ended; None while it waits or runs."""
    return status.state.terminated.exit_code if status.state.terminated else None


def _has_run(status: ContainerStatus) -> bool:
    state = status.state
    return bool(state.running or state.terminated or status.last_state.terminated or status.restart_count)


def _phase(containers: Sequence[ContainerStatus], initial: Sequence[ContainerStatus], ended: bool) -> str:
    if ended:
        # The sidecar is stopped when all others have ended, so its exit code does not count.
        decisive = [status for status in (*initial, *containers) if status.name != SIDECAR_CONTAINER]
        return "Succeeded" if all(_exit_code(status) == 0 for status in decisive) else "Failed"
    if any(_has_run(status) for status in containers):
        return "Running"
    return "Pending"


def _why_not_ready(containers: Sequence[ContainerStatus], phase: str, terminating: bool) -> tuple[str, str]:
    if terminating:
        return "Terminating", ""
    if phase == "Succeeded":
        return "PodCompleted", ""
    unready = [status.name for status in containers if not status.ready]
    return "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"


def _condition(kind: str, met: bool, otherwise: tuple[str, str]) -> PodCondition:
    if met:
        return PodCondition(type=kind, status="True")
    return PodCondition(type=kind, status="False", reason=otherwise[0], message=otherwise[1])
