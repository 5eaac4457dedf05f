"""The status of a pod, computed from the states of its containers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.annotations import SIDECAR_CONTAINER
from nginx_mesh.api.core import ContainerStatus, Pod, PodCondition, PodStatus


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
    initialized = all(status.state == "terminated" and status.exit_code == 0 for status in initial)
    phase = _phase(containers, initial, ended)
    ready = phase == "Running" and all(status.ready for status in containers) and not terminating
    why_not = _why_not_ready(containers, phase, terminating)
    return PodStatus(
        phase=phase,
        reason=problem[0],
        message=problem[1],
        host_ip=host_ip,
        pod_ip=next(iter(pod.status.ips), ""),
        pod_ips=pod.status.pod_ips,
        conditions=[
            PodCondition(type="PodScheduled", status="True"),
            _condition("Initialized", initialized, ("ContainersNotInitialized", "")),
            _condition("ContainersReady", ready, why_not),
            _condition("Ready", ready, why_not),
        ],
        container_statuses=list(containers),
        init_container_statuses=list(initial),
        start_time=start_time,
    )


def _phase(containers: Sequence[ContainerStatus], initial: Sequence[ContainerStatus], ended: bool) -> str:
    if ended:
        # The sidecar is stopped when all others have ended, so its exit code does not count.
        decisive = [status for status in (*initial, *containers) if status.name != SIDECAR_CONTAINER]
        return "Succeeded" if all(status.exit_code == 0 for status in decisive) else "Failed"
    if any(status.state == "running" or status.restart_count or status.exit_code is not None for status in containers):
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
