"""The status of pods and of their containers."""

from __future__ import annotations

import msgspec

from .meta import Model


class PodIP(Model, frozen=True, kw_only=True):
    """status.podIPs[]."""

    ip: str


class PodCondition(Model, frozen=True, kw_only=True):
    """status.conditions[]."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class ContainerStatus(Model, frozen=True, kw_only=True):
    """status.containerStatuses[]. `state` is one of waiting, running, terminated."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: str = "waiting"
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class PodStatus(Model, frozen=True, kw_only=True):
    """Pod status."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] = msgspec.field(name="podIPs", default_factory=list)
    conditions: list[PodCondition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []
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
