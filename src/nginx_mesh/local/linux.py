"""System calls that `os` of Python 3.11 lacks. Standard library only: the container launcher runs without packages."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

# In the order of linux/capability.h: the number of a capability is its index.
# fmt: off
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
# fmt: on

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _check(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")
    return result


def setns(fd: int, kinds: int) -> None:
    """Move the calling thread into the namespace(s) of `fd`: a namespace file or, with several kinds, a pidfd."""
    _check(_libc.setns(fd, kinds), "setns")


def unshare(kinds: int) -> None:
    """Move the calling thread into new namespaces; into a new pid namespace only its children."""
    _check(_libc.unshare(kinds), "unshare")


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), os.fsencode(data))
    _check(_libc.mount(*arguments), f"mount {fstype} on {target}")


def umount(target: str) -> None:
    """Detach a mount. Processes that use it keep it."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root(directory: str) -> None:
    """Make the mount at `directory` the root of this mount namespace, and drop the old root."""
    os.chdir(directory)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    umount(".")
    os.chdir("/")


def open_tree(directory_fd: int) -> int:
    """A detached copy (recursive bind mount) of an open directory or file, for `move_mount`."""
    flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | _AT_RECURSIVE | os.O_CLOEXEC
    return _check(_libc.open_tree(directory_fd, b"", ctypes.c_uint(flags)), "open_tree")


def move_mount(tree_fd: int, target: str) -> None:
    """Attach what open_tree returned at `target`."""
    arguments = (tree_fd, b"", _AT_FDCWD, os.fsencode(target), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH))
    _check(_libc.move_mount(*arguments), f"mount on {target}")


def restrict_mount(fd: int, *, read_only: bool, recursive: bool = True) -> None:
    """Make a mount (from `open_tree`, or an open mount point) nosuid and nodev and, with `read_only`, read-only."""
    wanted = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | (_MOUNT_ATTR_RDONLY if read_only else 0)
    attributes = _MountAttr(wanted, 0, 0, 0)
    flags = ctypes.c_uint(_AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0))
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _check(_libc.mount_setattr(fd, b"", flags, ctypes.byref(attributes), size), "mount_setattr")


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to the calling process when the thread that created it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0), "prctl")


def become(uid: int, gid: int, groups: list[int], capabilities: list[str]) -> None:
    """Give up root for ever: set the ids, drop all capabilities except those named, set no_new_privs.

    Only uid 0 can keep capabilities.

    Raises ValueError for a capability that does not exist.
    """
    keep = {CAPABILITIES.index(name.upper().removeprefix("CAP_")) for name in capabilities} if uid == 0 else set()
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")
    for number in range(_last_capability() + 1):
        if number not in keep:
            _check(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0), "prctl")
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    mask = sum(1 << number for number in keep)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (_CapData * 2)(_CapData(low, low, 0), _CapData(high, high, 0))
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "prctl")


def _last_capability() -> int:
    """The number of the kernel's highest capability. /proc must still be mounted."""
    with open("/proc/sys/kernel/cap_last_cap") as file:  # noqa: PTH123 - pathlib costs the launcher 10 ms
        return int(file.read())
