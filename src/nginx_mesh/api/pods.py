"""Pods, and the templates from which workloads make them."""

from __future__ import annotations

from typing import ClassVar

from .containers import Container
from .meta import Model, Object, ObjectMeta
from .podstatus import PodStatus
from .volumes import Volume


class PodSecurityContext(Model, frozen=True, kw_only=True):
    """Of a pod."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None


class PodSpec(Model, frozen=True, kw_only=True):
    """Pod spec."""

    containers: list[Container]
    init_containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    volumes: list[Volume] = []
    service_account_name: str = ""
    host_network: bool = False
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    security_context: PodSecurityContext | None = None
    hostname: str = ""
    subdomain: str = ""
    node_name: str = ""


class PodTemplateSpec(Model, frozen=True, kw_only=True):
    """spec.template of a workload."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec


class Pod(Object, frozen=True, kw_only=True):
    """v1 Pod."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Pod"
    PLURAL: ClassVar[str] = "pods"

    spec: PodSpec
    status: PodStatus = PodStatus()
