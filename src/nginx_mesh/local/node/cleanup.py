"""Ending and removing the processes, namespaces and files of a mesh.

What belongs to a mesh is found by what the kernel reports, so that it is found even when the mesh's files are gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from nginx_mesh.local.files import remove_tree
from nginx_mesh.local.net import netns, network
from nginx_mesh.local.paths import MeshPaths, is_short_id, short_id

_PROC = Path("/proc")
_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.02


class KillTimeoutError(Exception):
    """Processes that have not ended although they were killed."""


def remove_lost_containers(paths: MeshPaths, uid: str) -> None:
    """Kill a pod's containers and remove their records when the pod's network is gone, as it is after a reboot.

    The pod then starts from the beginning. The caller must be in the node's namespace.
    """
    records = paths.pod_dir(uid) / "containers"
    if records.exists() and not network.has_pod(paths, uid):
        kill_in_namespaces([], supervised=records)
        remove_tree(records)


def remove_other_pods(paths: MeshPaths, uids: Iterable[str]) -> None:
    """End and remove the pods of a mesh that are not among `uids`. The caller must be in the node's namespace."""
    _remove_pods(paths, _known_pods(paths) - {short_id(uid) for uid in uids})


def destroy_node(paths: MeshPaths) -> None:
    """End all processes of a mesh and remove everything it had, whatever state it is in. Idempotent.

    The caller may be in any namespace, also in the node's, which is then removed too.
    """
    node = paths.node_netns
    pods = _known_pods(paths)
    names = [f"{node}.{pod}" for pod in pods]
    kill_in_namespaces([node, *names], supervised=paths.run)
    for name in names:
        netns.delete(name)
    if netns.exists(node):
        netns.run_in_thread(network.tear_down_node, node)
    netns.delete(node)
    for directory in (paths.run, paths.state):
        remove_tree(directory)
    for parent in paths.shared_roots:
        with contextlib.suppress(OSError):
            parent.rmdir()


def kill_in_namespaces(names: Iterable[str], supervised: Path | None = None) -> None:
    """Kill every process in these network namespaces, and wait until they have ended.

    The caller and its ancestors are spared. With `supervised`, supervisors of containers whose records are below that
    directory are killed too, whatever namespace they are in. Raises KillTimeoutError.
    """
    namespaces = {found for name in names if netns.exists(name) and (found := netns.namespace_id(netns.path(name)))}
    deadline = time.monotonic() + _KILL_SECONDS
    while pids := _find_processes(namespaces, supervised):
        if time.monotonic() > deadline:
            raise KillTimeoutError(f"processes {', '.join(map(str, pids))} do not end")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _known_pods(paths: MeshPaths) -> set[str]:
    """The short ids of all pods that have a namespace or a directory."""
    prefix = f"{paths.node_netns}."
    known = {name.removeprefix(prefix) for name in netns.names() if name.startswith(prefix)}
    for directory in (paths.pods, paths.pod_disks, paths.logs, paths.sockets):
        if directory.is_dir():
            known |= {entry.name for entry in directory.iterdir()}
    return {name for name in known if is_short_id(name)}


def _remove_pods(paths: MeshPaths, short_ids: set[str]) -> None:
    if not short_ids:
        return
    names = [f"{paths.node_netns}.{short}" for short in short_ids]
    kill_in_namespaces(names)
    for short in short_ids:
        network.remove_interface(short)
        netns.delete(f"{paths.node_netns}.{short}")
        for directory in (paths.pod_disks, paths.sockets, paths.logs, paths.pods):
            remove_tree(directory / short)


def _find_processes(namespaces: set[tuple[int, int]], supervised: Path | None) -> list[int]:
    spared = _own_process_and_ancestors()
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and int(entry.name) not in spared:
            inside = bool(namespaces) and netns.namespace_id(entry / "ns/net") in namespaces
            if inside or (supervised is not None and _is_supervisor(entry, supervised)):
                found.append(int(entry.name))
    return found


def _is_supervisor(process: Path, directory: Path) -> bool:
    """Whether a process is `sh -c SCRIPT CONTAINER_DIRECTORY …` of root, which is how container.py runs supervisors."""
    try:
        argv = (process / "cmdline").read_bytes().split(b"\0")
        return len(argv) > 3 and process.stat().st_uid == 0 and argv[3].startswith(os.fsencode(directory) + b"/")
    except OSError:
        return False


def _own_process_and_ancestors() -> set[int]:
    pids = set()
    pid = os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        try:
            stat = (_PROC / str(pid) / "stat").read_text()
        except OSError:
            break
        pid = int(stat[stat.rindex(")") + 2 :].split()[1])
    return pids
