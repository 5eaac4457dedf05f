"""Workloads: the objects from which controllers make pods."""

from __future__ import annotations

from typing import ClassVar

from .meta import IntOrString, Model, Object, ObjectMeta
from .pods import PodTemplateSpec
from .selectors import LabelSelector


class RollingUpdate(Model, frozen=True, kw_only=True):
    """strategy.rollingUpdate: numbers of pods, or percentages such as "25%"."""

    max_surge: IntOrString = "25%"
    max_unavailable: IntOrString = "25%"


class DeploymentStrategy(Model, frozen=True, kw_only=True):
    """How a Deployment replaces pods: RollingUpdate or Recreate."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class DeploymentSpec(Model, frozen=True, kw_only=True):
    """Deployment spec."""

    selector: LabelSelector
    template: PodTemplateSpec
    replicas: int = 1
    strategy: DeploymentStrategy = DeploymentStrategy()


class WorkloadStatus(Model, frozen=True, kw_only=True):
    """status of Deployment, StatefulSet, DaemonSet and ReplicaSet, as far as `get` shows it."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0


class Deployment(Object, frozen=True, kw_only=True):
    """apps/v1 Deployment."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "Deployment"
    PLURAL: ClassVar[str] = "deployments"

    spec: DeploymentSpec
    status: WorkloadStatus = WorkloadStatus()


class ReplicaSet(Object, frozen=True, kw_only=True):
    """apps/v1 ReplicaSet."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "ReplicaSet"
    PLURAL: ClassVar[str] = "replicasets"

    spec: DeploymentSpec
    status: WorkloadStatus = WorkloadStatus()


class StatefulSetSpec(Model, frozen=True, kw_only=True):
    """StatefulSet spec."""

    selector: LabelSelector
    template: PodTemplateSpec
    service_name: str = ""
    replicas: int = 1


class StatefulSet(Object, frozen=True, kw_only=True):
    """apps/v1 StatefulSet."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "StatefulSet"
    PLURAL: ClassVar[str] = "statefulsets"

    spec: StatefulSetSpec
    status: WorkloadStatus = WorkloadStatus()


class DaemonSetSpec(Model, frozen=True, kw_only=True):
    """DaemonSet spec."""

    selector: LabelSelector
    template: PodTemplateSpec


class DaemonSet(Object, frozen=True, kw_only=True):
    """apps/v1 DaemonSet."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "DaemonSet"
    PLURAL: ClassVar[str] = "daemonsets"

    spec: DaemonSetSpec
    status: WorkloadStatus = WorkloadStatus()


class ReplicationControllerSpec(Model, frozen=True, kw_only=True):
    """ReplicationController spec."""

    template: PodTemplateSpec
    selector: dict[str, str] = {}
    replicas: int = 1


class ReplicationController(Object, frozen=True, kw_only=True):
    """v1 ReplicationController."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ReplicationController"
    PLURAL: ClassVar[str] = "replicationcontrollers"

    spec: ReplicationControllerSpec


class JobSpec(Model, frozen=True, kw_only=True):
    """Job spec."""

    template: PodTemplateSpec
    completions: int = 1
    parallelism: int = 1
    backoff_limit: int = 6


class JobStatus(Model, frozen=True, kw_only=True):
    """Job status."""

    active: int = 0
    succeeded: int = 0
    failed: int = 0


class Job(Object, frozen=True, kw_only=True):
    """batch/v1 Job."""

    API_VERSION: ClassVar[str] = "batch/v1"
    KIND: ClassVar[str] = "Job"
    PLURAL: ClassVar[str] = "jobs"

    spec: JobSpec
    status: JobStatus = JobStatus()


class JobTemplateSpec(Model, frozen=True, kw_only=True):
    """spec.jobTemplate of a CronJob."""

    metadata: ObjectMeta = ObjectMeta()
    spec: JobSpec


class CronJobSpec(Model, frozen=True, kw_only=True):
    """CronJob spec."""

    job_template: JobTemplateSpec


class CronJob(Object, frozen=True, kw_only=True):
    """batch/v1 CronJob: makes Jobs, which make pods."""

    API_VERSION: ClassVar[str] = "batch/v1"
    KIND: ClassVar[str] = "CronJob"
    PLURAL: ClassVar[str] = "cronjobs"

    spec: CronJobSpec


class ControllerRevision(Object, frozen=True, kw_only=True):
    """apps/v1 ControllerRevision: a former state of a StatefulSet or DaemonSet, numbered."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "ControllerRevision"
    PLURAL: ClassVar[str] = "controllerrevisions"

    revision: int
