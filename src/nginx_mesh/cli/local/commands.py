"""`nginx-meshctl local`: the mesh on one machine."""

from __future__ import annotations

import click

from nginx_mesh.cli.group import MeshGroup

from .containers import exec_, logs
from .lifecycle import down, list_, up
from .metrics import metrics
from .objects import apply, delete, describe, get
from .peering import connect, disconnect
from .workloads import restart, scale


@click.group(cls=MeshGroup)
def local() -> None:
    """Run the mesh on this machine, without a cluster.

    Kubernetes manifests run as processes in network namespaces, each pod with its own address and, where injection is
    enabled, its own sidecar. Needs root.

    \b
    Start a mesh with an application, look at it, end it:
      nginx-meshctl local up -f app.yaml
      nginx-meshctl local get pods -A
      nginx-meshctl local down
    """


for command in (
    apply,
    connect,
    delete,
    describe,
    disconnect,
    down,
    exec_,
    get,
    list_,
    logs,
    metrics,
    restart,
    scale,
    up,
):
    local.add_command(command)
