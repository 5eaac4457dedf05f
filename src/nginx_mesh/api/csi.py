"""Volumes of the CSI drivers through which pods get what only their node can give them."""

from __future__ import annotations

from nginx_mesh.api.pods import Pod
from nginx_mesh.api.volumes import Volume

CSI_DRIVER = "csi.nginx-mesh.nginx.com"
"""Our own driver: writable, it is the directory that a sidecar shares with its node; read-only, the Workload API."""

SPIFFE_CSI_DRIVER = "csi.spiffe.io"
"""The driver by which workloads of SPIFFE deployments mount the Workload API."""


def is_workload_api(volume: Volume) -> bool:
    """Whether a volume is the directory of the pod's SPIFFE Workload API socket."""
    csi = volume.csi
    return csi is not None and (csi.driver == SPIFFE_CSI_DRIVER or (csi.driver == CSI_DRIVER and csi.read_only))


def wants_workload_api(pod: Pod) -> bool:
    """Whether a pod mounts its Workload API."""
    return any(is_workload_api(volume) for volume in pod.spec.volumes)
