"""The status of pods and of their containers."""

from __future__ import annotations

import msgspec

from .meta import Model


class PodIP(Model, frozen=True, kw_only=True):
    """status.podIPs[]."""

    ip: str


class HostIP(Model, frozen=True, kw_only=True):
    """status.hostIPs[]."""

    ip: str


class PodCondition(Model, frozen=True, kw_only=True):
    """status.conditions[]; `last_transition_time` is RFC 3339."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class ContainerStateWaiting(Model, frozen=True, kw_only=True):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class ContainerStateRunning(Model, frozen=True, kw_only=True):
    """When a container that runs was started, as RFC 3339."""

    started_at: str = ""


class ContainerStateTerminated(Model, frozen=True, kw_only=True):
    """How and when a container ended. `exit_code` is 128 + N when signal N ended it; times are RFC 3339."""

    exit_code: int
    reason: str = ""
    message: str = ""
    started_at: str = ""
    finished_at: str = ""


class ContainerState(Model, frozen=True, kw_only=True):
    """At most one of three. Without any of them, a `state` is that of a container that waits, a `lastState` is none."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


# Kubernetes writes `ready: false` and `restartCount: 0` as well, and so do we.
class ContainerStatus(Model, frozen=True, kw_only=True, omit_defaults=False):
    """status.containerStatuses[], initContainerStatuses[] or ephemeralContainerStatuses[].

    `started` says that it runs and its startup probe, if any, has succeeded; `last_state` is how its last run ended.
    """

    name: str
    image: str = ""
    image_id: str = msgspec.field(name="imageID", default="")
    ready: bool = False
    started: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(Model, frozen=True, kw_only=True):
    """Pod status."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    host_ips: list[HostIP] = msgspec.field(name="hostIPs", default_factory=list)
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] = msgspec.field(name="podIPs", default_factory=list)
    conditions: list[PodCondition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []
    ephemeral_container_statuses: list[ContainerStatus] = []
    start_time: str = ""

    @property
    def ips(self) -> tuple[str, ...]:
        """Every address of the pod, the primary one first."""
        if self.pod_ips:
            return tuple(entry.ip for entry in self.pod_ips)
        return (self.pod_ip,) if self.pod_ip else ()

    @property
    def ready(self) -> bool:
        """Whether the Ready condition is True."""
        return any(c.type == "Ready" and c.status == "True" for c in self.conditions)
