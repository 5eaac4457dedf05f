"""The containers and volumes that injection adds."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.annotations import INIT_CONTAINER, SIDECAR_CONTAINER
from nginx_mesh.api.csi import CSI_DRIVER
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.values import format_ports
from nginx_mesh.protocol.control import SIDECAR_UID

from .probes import HTTP_PORT, READY
from .settings import InjectSettings

METRICS_PORT = 8887
SOCKET_VOLUME = "nginx-mesh-socket"
TMP_VOLUME = "nginx-mesh-tmp"
# Where SPIFFE clients expect the socket of the Workload API.
WORKLOAD_API_DIRECTORY = "/run/spire/sockets"


def init_container(settings: InjectSettings, incoming: Sequence[int], outgoing: Sequence[int]) -> Resource:
    """The container that redirects the pod's traffic, except for these ports. It runs as root for that."""
    args = [
        f"--ignore-{direction}-ports={format_ports(ports)}"
        for direction, ports in (("incoming", incoming), ("outgoing", outgoing))
        if ports
    ]
    return {
        "name": INIT_CONTAINER,
        "image": settings.init_image,
        "command": ["/usr/lib/nginx-mesh/redirect"],
        "args": args,
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        },
    }


def sidecar_container(settings: InjectSettings) -> Resource:
    """The container of nginx, without privileges. It is ready once it has its state and identity."""
    return {
        "name": SIDECAR_CONTAINER,
        "image": settings.sidecar_image,
        "command": ["/usr/lib/nginx-mesh/sidecar"],
        # Port names may have at most 15 characters.
        "ports": [{"name": "mesh-metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": READY, "port": HTTP_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
        },
        "securityContext": {
            "runAsUser": SIDECAR_UID,
            "runAsGroup": SIDECAR_UID,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": SOCKET_VOLUME, "mountPath": "/run/nginx-mesh"},
            {"name": TMP_VOLUME, "mountPath": "/tmp"},  # noqa: S108 - the sidecar's own
        ],
    }


def sidecar_volumes() -> list[Resource]:
    """The volumes of the socket by which the node's agent reaches the sidecar, and of temporary files."""
    return [
        {"name": SOCKET_VOLUME, "csi": {"driver": CSI_DRIVER}},
        {"name": TMP_VOLUME, "emptyDir": {}},
    ]


def workload_api_volume() -> Resource:
    """The volume of the SPIFFE Workload API's socket."""
    return {"name": SOCKET_VOLUME, "csi": {"driver": CSI_DRIVER, "readOnly": True}}


def workload_api_mount() -> Resource:
    """The mount of that volume in a container."""
    return {"name": SOCKET_VOLUME, "mountPath": WORKLOAD_API_DIRECTORY, "readOnly": True}
