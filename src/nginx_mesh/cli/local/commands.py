"""`nginx-meshctl local`: the mesh on one machine."""

from __future__ import annotations

from typing import Final

import click

from nginx_mesh.cli.group import LazyMeshGroup

COMMANDS: Final = {
    "apply": (
        "nginx_mesh.cli.local.objects:apply",
        "Create or change objects as manifests say: all of them, or none if any is wrong.",
    ),
    "connect": ("nginx_mesh.cli.local.peering:connect", "Let the pods of two meshes reach each other."),
    "delete": ("nginx_mesh.cli.local.objects:delete", "Delete objects, and what belongs to them."),
    "describe": ("nginx_mesh.cli.local.objects:describe", "Show an object in full, with what happened to it."),
    "disconnect": ("nginx_mesh.cli.local.peering:disconnect", "Undo `connect`."),
    "down": ("nginx_mesh.cli.local.lifecycle:down", "End a mesh: its pods, its network, and all that it kept."),
    "exec": (
        "nginx_mesh.cli.local.containers:exec_",
        "Run a command in a container; its exit code is this command's.",
    ),
    "get": ("nginx_mesh.cli.local.objects:get", "Show objects."),
    "list": ("nginx_mesh.cli.local.lifecycle:list_", "Show the local meshes of this machine."),
    "logs": ("nginx_mesh.cli.local.containers:logs", "Print what a container wrote."),
    "metrics": (
        "nginx_mesh.cli.local.metrics:metrics",
        "Serve the metrics of all sidecars to a Prometheus on this machine, until Ctrl-C.",
    ),
    "restart": (
        "nginx_mesh.cli.local.workloads:restart",
        "Replace a workload's pods by new ones, without a gap in service.",
    ),
    "scale": ("nginx_mesh.cli.local.workloads:scale", "Change how many pods a workload has."),
    "up": (
        "nginx_mesh.cli.local.lifecycle:up",
        "Start a mesh, apply manifests to it, and wait until every pod is ready.",
    ),
}


@click.group(cls=LazyMeshGroup, lazy=COMMANDS)
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
