"""Named network namespaces, visible to `ip netns`, and running code inside them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nginx_mesh.local.node import linux
from nginx_mesh.local.paths import MeshPaths

T = TypeVar("T")

_DIRECTORY = Path("/run/netns")
_THREAD_NETNS = Path("/proc/thread-self/ns/net")


def path(name: str) -> Path:
    """The file that names the namespace."""
    return _DIRECTORY / name


def exists(name: str) -> bool:
    """Whether `name` is a namespace, and not just a file that a reboot left behind."""
    try:
        return path(name).lstat().st_dev != _DIRECTORY.stat().st_dev
    except FileNotFoundError:
        return False


def names() -> list[str]:
    """All names there are, also those that a reboot left behind."""
    return [entry.name for entry in _DIRECTORY.iterdir()] if _DIRECTORY.is_dir() else []


def create(name: str) -> None:
    """Make the namespace with its loopback interface down. Does nothing when it exists."""
    if exists(name):
        return

    def bind_new_namespace() -> None:
        linux.unshare(linux.CLONE_NEWNET)
        linux.mount(str(_THREAD_NETNS), str(path(name)), "", linux.MS_BIND)

    _DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    path(name).touch(mode=0o444)
    try:
        run_in_thread(bind_new_namespace)
    except OSError:
        path(name).unlink()
        raise


def delete(name: str) -> None:
    """Take the name away; the namespace goes with its last process. Does nothing when there is none."""
    while exists(name):
        linux.umount(str(path(name)))
    path(name).unlink(missing_ok=True)


def enter(namespace: str | int) -> None:
    """Move the calling thread, and so the threads and processes it will start, into a namespace: a name, or `own`'s."""
    if isinstance(namespace, int):
        linux.setns(namespace, linux.CLONE_NEWNET)
        return
    fd = os.open(path(namespace), os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(fd, linux.CLONE_NEWNET)
    finally:
        os.close(fd)


def own() -> int:
    """A descriptor of the caller's namespace, to come back to."""
    return os.open(_THREAD_NETNS, os.O_RDONLY | os.O_CLOEXEC)


def enter_node(name: str) -> None:
    """Move the calling process into the node namespace of the mesh called `name`, made if need be.

    Call it before any other thread runs: threads that exist already stay where they are.
    """
    namespace = MeshPaths(name).node_netns
    create(namespace)
    enter(namespace)


def identity(namespace: Path = _THREAD_NETNS) -> tuple[int, int] | None:
    """What tells a namespace (by default the caller's) from all others: device and inode; None when it is gone."""
    try:
        status = namespace.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def run_in_thread(function: Callable[[], T], namespace: str | int | None = None) -> T:
    """Call `function` in a thread of its own, in a namespace (as `enter`) if one is given, and wait for the result.

    What namespaces `function` takes the thread to dies with it.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def call() -> None:
        try:
            if namespace is not None:
                enter(namespace)
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=call, name="namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


async def run_aside(function: Callable[[], T], namespace: str | None = None) -> T:
    """`run_in_thread` that lets the event loop go on."""
    return await asyncio.to_thread(run_in_thread, function, namespace)
