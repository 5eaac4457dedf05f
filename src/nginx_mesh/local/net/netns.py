"""Named network namespaces, visible to `ip netns`, and running code inside them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nginx_mesh.local import linux
from nginx_mesh.local.paths import MeshPaths

T = TypeVar("T")

_DIRECTORY = Path("/run/netns")
_THREAD_NETNS = Path("/proc/thread-self/ns/net")


def path(name: str) -> Path:
    """The file that names the namespace."""
    return _DIRECTORY / name


def exists(name: str) -> bool:
    """Whether `name` is a namespace, and not only a file that a reboot left behind."""
    try:
        return path(name).lstat().st_dev != _DIRECTORY.stat().st_dev
    except FileNotFoundError:
        return False


def names() -> list[str]:
    """All names, including those that a reboot left behind."""
    return [entry.name for entry in _DIRECTORY.iterdir()] if _DIRECTORY.is_dir() else []


def create(name: str) -> None:
    """Make the namespace, with its loopback interface down. Does nothing when it exists."""
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
    """Remove the name, if it exists. The kernel removes the namespace with its last process."""
    while exists(name):
        linux.umount(str(path(name)))
    path(name).unlink(missing_ok=True)


def enter(namespace: str | int) -> None:
    """Move the calling thread, and the threads and processes that it will start, into a namespace.

    `namespace` is a name, or a descriptor from `open_own`.
    """
    if isinstance(namespace, int):
        linux.setns(namespace, linux.CLONE_NEWNET)
        return
    fd = os.open(path(namespace), os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(fd, linux.CLONE_NEWNET)
    finally:
        os.close(fd)


def open_own() -> int:
    """A new descriptor of the caller's namespace, for `enter`."""
    return os.open(_THREAD_NETNS, os.O_RDONLY | os.O_CLOEXEC)


def enter_node(name: str) -> None:
    """Move the calling process into the node namespace of the mesh called `name`, which is made if it does not exist.

    Call it before any other thread runs: existing threads stay in the former namespace.
    """
    namespace = MeshPaths(name).node_netns
    create(namespace)
    enter(namespace)


def namespace_id(namespace: Path) -> tuple[int, int] | None:
    """Device and inode, which no other namespace has, of a namespace by one of its files; None when it is gone."""
    try:
        status = namespace.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def run_in_thread(function: Callable[[], T], namespace: str | int | None = None) -> T:
    """Call `function` in a new thread, in a namespace (as `enter`) if one is given, and wait for the result.

    The caller's thread stays in its namespaces, whatever namespaces `function` enters.
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


async def run_async(function: Callable[[], T], namespace: str | None = None) -> T:
    """Like `run_in_thread`, without blocking the event loop."""
    return await asyncio.to_thread(run_in_thread, function, namespace)
