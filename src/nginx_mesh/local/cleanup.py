"""Finding and ending what belongs to a mesh by what the kernel says, whatever has become of its files."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from .net import netns, network
from .node.volumes import remove_tree
from .paths import MeshPaths, is_short_id, short_id

_PROC = Path("/proc")
_PATIENCE = 10.0
_POLL = 0.02


class LeftoverError(Exception):
    """Processes that do not end even when killed."""


def forget_lost_containers(paths: MeshPaths, uid: str) -> None:
    """End and forget a pod's containers when its network is gone, as after a reboot: it has to begin from the start.

    Call it inside the node's namespace.
    """
    records = paths.pod_dir(uid) / "containers"
    if records.exists() and not network.has_pod(paths, uid):
        kill_in_namespaces([], supervised=records)
        remove_tree(records)


def remove_strangers(paths: MeshPaths, uids: Iterable[str]) -> None:
    """End and remove the pods of a mesh that are not among `uids`. Call it inside the node's namespace."""
    _remove_pods(paths, _known_pods(paths) - {short_id(uid) for uid in uids})


def destroy_node(paths: MeshPaths) -> None:
    """End everything of a mesh and remove all it had, whatever state it is in and wherever the caller is.

    The caller may be in the node's namespace, which then ends with it. Does nothing when there is nothing left.
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
    """Kill every process in these network namespaces, and wait until they are gone.

    The caller and its ancestors are spared. With `supervised`, supervisors of containers whose records are below that
    directory go too, wherever they are. Raises LeftoverError.
    """
    targets = {identity for name in names if netns.exists(name) and (identity := netns.identity(netns.path(name)))}
    deadline = time.monotonic() + _PATIENCE
    while victims := _find(targets, supervised):
        if time.monotonic() > deadline:
            raise LeftoverError(f"processes {', '.join(map(str, victims))} do not end")
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)


def _known_pods(paths: MeshPaths) -> set[str]:
    """Short ids of all pods that have left a trace: a namespace or a directory."""
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


def _find(targets: set[tuple[int, int]], supervised: Path | None) -> list[int]:
    spared = _lineage()
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and int(entry.name) not in spared:
            inside = bool(targets) and netns.identity(entry / "ns/net") in targets
            if inside or (supervised is not None and _supervises(entry, supervised)):
                found.append(int(entry.name))
    return found


def _supervises(process: Path, directory: Path) -> bool:
    """Whether this is `sh -c SCRIPT CONTAINER_DIRECTORY …` of root, which is what supervisors look like."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        return len(words) > 3 and process.stat().st_uid == 0 and words[3].startswith(os.fsencode(directory) + b"/")
    except OSError:
        return False


def _lineage() -> set[int]:
    """The calling process and its ancestors."""
    lineage = set()
    pid = os.getpid()
    while pid > 0 and pid not in lineage:
        lineage.add(pid)
        try:
            stat = (_PROC / str(pid) / "stat").read_text()
        except OSError:
            break
        pid = int(stat[stat.rindex(")") + 2 :].split()[1])
    return lineage
