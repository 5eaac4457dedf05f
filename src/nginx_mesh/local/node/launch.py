"""The container launcher: turns its own process into the main process of a container.

It is run by its path with `python -I -S`, as root, in the pod's network namespace and (for `run`) in a new pid
namespace. It ends with execve, so no Python process remains. It imports little, and only from the standard library,
because every container waits for it to start.

    launch.py run SPEC READY_FD        set the container up and run its command
    launch.py exec SPEC PID TTY ARGV   run ARGV in the container whose main process is PID

SPEC is a JSON file with the fields of `LaunchSpec` (launchspec.py). Exit codes are those of a shell: 127 for a command
that does not exist, 126 for one that cannot be run or a container that cannot be set up; the reason is written to the
file `failure` beside SPEC (for `exec`: to stderr).
"""

# Importing pathlib would double the launcher's own time.
# ruff: noqa: PTH100, PTH101, PTH102, PTH103, PTH110, PTH112, PTH113, PTH118, PTH120, PTH123, PTH211

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import sys
import termios

# The directory that has the package nginx_mesh: this file is nginx_mesh/local/node/launch.py.
sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))

from nginx_mesh.local import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_CANNOT_RUN = 126
_NOT_FOUND = 127
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_DISK_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "nfs", "nfs4", "9p", "virtiofs", "erofs"}
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_PROC_HIDDEN = ("kcore", "keys", "timer_list")
_PROTECTED = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC


class SetupError(Exception):
    """The container cannot be set up, or its command cannot be run. `code` is the exit code of the container."""

    def __init__(self, message: str, code: int = _CANNOT_RUN) -> None:
        super().__init__(message)
        self.code = code


def main(arguments: list[str]) -> NoReturn:
    """Run one of the two commands above."""
    command, spec_path, *rest = arguments
    with open(spec_path) as file:
        spec = json.load(file)
    directory_fd = os.open(os.path.dirname(spec_path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if command == "exec":
        _exec(spec, int(rest[0]), rest[1] == "tty", rest[2:])
    failure_fd = os.open("failure", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    try:
        _run(spec, directory_fd, int(rest[0]))
    except (OSError, SetupError, ValueError) as error:
        os.write(failure_fd, str(error).encode())
        sys.exit(error.code if isinstance(error, SetupError) else _CANNOT_RUN)


def _run(spec: dict[str, Any], directory_fd: int, ready_fd: int) -> NoReturn:
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC)
    _record_processes(directory_fd)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    root = _mount_root(spec)
    binds = [(bind["target"], _bind_source(bind)) for bind in spec["binds"]]
    host_mounts = _host_mounts(spec["masks"]) if spec["host_root"] else []
    binds += [(target, _open_read_only(target)) for target in host_mounts]
    linux.pivot_root(root)
    _mount_kernel_file_systems()
    for target, tree in sorted(binds):
        _attach(tree, target)
        if target in host_mounts:
            _mask_below(target, spec["masks"])
    if spec["working_dir"]:
        os.makedirs(spec["working_dir"], exist_ok=True)
    if spec["read_only_root"]:
        root_fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
        linux.restrict_mount(root_fd, read_only=True, recursive=False)
    socket.sethostname(spec["hostname"])
    os.set_inheritable(ready_fd, False)

    def report_ready() -> None:
        with contextlib.suppress(BrokenPipeError):  # the daemon has ended meanwhile
            os.write(ready_fd, b"1")

    _execute(spec, spec["argv"], report_ready)


def _record_processes(directory_fd: int) -> None:
    """Write the pids on the host of the supervisor and of this process, atomically. /proc must still be the host's."""
    with open("/proc/self/stat") as file:
        text = file.read()
    fields = text[text.rindex(")") + 2 :].split()
    record = json.dumps({"supervisor": int(fields[1]), "main": int(text.split()[0])})
    name, temporary = "processes.json", "processes.json.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    os.write(fd, record.encode())
    os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def _mount_root(spec: dict[str, Any]) -> str:
    """Mount the container's root: the image with a new writable layer above it. Returns the path of the mount."""
    disk: str = spec["disk"]
    try:
        return _mount_overlay(spec, disk)
    except OSError:
        # The file system of the disk cannot have a writable layer, as it is an overlay itself. Use memory instead.
        linux.mount("tmpfs", disk, "tmpfs", linux.MS_NODEV, "mode=0700")
        return _mount_overlay(spec, disk)


def _mount_overlay(spec: dict[str, Any], disk: str) -> str:
    upper, work, root = (os.path.join(disk, name) for name in ("upper", "work", "root"))
    for path in (disk, upper, work, root):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o755)  # noqa: S103 - the container's users; its parent is 0700
    for mask, mode in spec["masks"].items():
        path = upper + mask
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        # An opaque directory hides the directory of this name in the layers below.
        os.setxattr(path, "trusted.overlay.opaque", b"y")
    os.makedirs(upper + "/etc", exist_ok=True)
    for path, content in spec["files"].items():
        fd = os.open(upper + path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, content.encode())
        os.close(fd)
    data = f"lowerdir={spec['image']},upperdir={upper},workdir={work}"
    linux.mount("overlay", root, "overlay", linux.MS_NODEV | linux.MS_NOSUID, data)
    return root


def _bind_source(bind: dict[str, Any]) -> int:
    """A detached copy of the directory or file of a volume mount.

    No symbolic link in its subPath is followed. Missing directories of the subPath are made with the volume's mode.
    """
    fd = os.open(bind["source"], os.O_PATH | os.O_CLOEXEC)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    for part in bind["sub_path"].split("/") if bind["sub_path"] else ():
        try:
            child = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except FileNotFoundError:
            _make_directory(part, fd, mode)
            child = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except OSError as error:
            raise SetupError(f"subPath {bind['sub_path']!r} of {bind['target']}: {error.strerror}") from None
        if stat.S_ISLNK(os.fstat(child).st_mode):
            raise SetupError(f"subPath {bind['sub_path']!r} of {bind['target']}: a symbolic link is in it")
        os.close(fd)
        fd = child
    tree = linux.open_tree(fd)
    linux.restrict_mount(tree, read_only=bind["read_only"])
    return tree


def _make_directory(name: str, parent_fd: int, mode: int) -> None:
    mask = os.umask(0)
    os.mkdir(name, mode, dir_fd=parent_fd)
    os.umask(mask)


def _open_read_only(path: str) -> int:
    tree = linux.open_tree(os.open(path, os.O_PATH | os.O_CLOEXEC))
    linux.restrict_mount(tree, read_only=True)
    return tree


def _host_mounts(masks: dict[str, int]) -> list[str]:
    """The mount points of other disks of the host (/usr, /home, …), which an overlay of / does not include."""
    found: list[str] = []
    hidden = ("/proc", "/sys", "/dev", *masks)
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            point, fstype = fields[4], fields[fields.index("-") + 1]
            if point == "/" or "\\" in point or fstype not in _DISK_FILE_SYSTEMS or not os.path.isdir(point):
                continue
            if not any(_is_below(point, top) for top in (*hidden, *found)):
                found.append(point)
    return found


def _mask_below(host_mount: str, masks: dict[str, int]) -> None:
    for mask, mode in masks.items():
        if _is_below(mask, host_mount) and os.path.isdir(mask):
            linux.mount("tmpfs", mask, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"mode={mode:o}")


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def _mount_kernel_file_systems() -> None:
    for path in ("/proc", "/sys", "/dev"):
        os.makedirs(path, exist_ok=True)
    linux.mount("proc", "/proc", "proc", _PROTECTED)
    linux.mount("sysfs", "/sys", "sysfs", _PROTECTED | linux.MS_RDONLY)
    linux.mount("tmpfs", "/dev", "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=0755,size=64k")
    for name, (major, minor) in _DEVICES.items():
        path = f"/dev/{name}"
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(path, 0o666)  # noqa: S103
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts")
    os.mkdir("/dev/shm")  # noqa: S108
    linux.mount(
        "devpts", "/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"
    )
    linux.mount("shm", "/dev/shm", "tmpfs", _PROTECTED, "mode=1777,size=64m")  # noqa: S108
    # A container that runs as uid 0 could leave its namespaces by writing to files of root there.
    for name in _PROC_READ_ONLY:
        path = f"/proc/{name}"
        if os.path.exists(path):
            linux.move_mount(_open_read_only(path), path)
    for name in _PROC_HIDDEN:
        path = f"/proc/{name}"
        if os.path.exists(path):
            linux.mount("/dev/null", path, "", linux.MS_BIND)


def _attach(tree: int, target: str) -> None:
    """Mount at `target`, in the container's root. Makes the target if it does not exist."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    linux.move_mount(tree, target)
    os.close(tree)


def _execute(spec: dict[str, Any], argv: list[str], before_exec: Callable[[], object]) -> NoReturn:
    """Drop privileges, call `before_exec`, and execute the command."""
    _raise_open_files(spec["open_files"])
    os.umask(0o022)
    linux.become(spec["uid"], spec["gid"], spec["groups"], spec["capabilities"])
    try:
        os.chdir(spec["working_dir"] or "/")
    except OSError as error:
        raise SetupError(f"working directory {spec['working_dir']!r}: {error.strerror}") from None
    program = _find_program(argv[0], spec["env"].get("PATH", ""))
    before_exec()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:  # Python and nohup ignore some of them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, argv, spec["env"])  # noqa: S606
    except OSError as error:
        if error.errno == 8:  # ENOEXEC: a script without #!, which execvp and shells run with sh
            os.execve("/bin/sh", ["/bin/sh", program, *argv[1:]], spec["env"])  # noqa: S606
        raise SetupError(f"{argv[0]}: {error.strerror}") from None


def _raise_open_files(wanted: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except ValueError:  # root without CAP_SYS_RESOURCE, as in a container, may not go above what it has
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted), hard))


def _find_program(name: str, path: str) -> str:
    if "/" in name:
        candidates = [name]
    else:
        candidates = [os.path.join(directory, name) for directory in path.split(":") if directory]
    found = [candidate for candidate in candidates if os.path.isfile(candidate)]
    for candidate in found:
        if os.access(candidate, os.X_OK):
            return candidate
    if found:
        raise SetupError(f"{name}: permission denied")
    where = "" if "/" in name else " in $PATH"
    raise SetupError(f"{name}: executable file not found{where}", _NOT_FOUND)


def _exec(spec: dict[str, Any], main_pid: int, tty: bool, argv: list[str]) -> NoReturn:
    """Run `argv` in the namespaces of the main process, and exit with its exit code."""
    try:
        kinds = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC
        linux.setns(os.pidfd_open(main_pid), kinds)
    except OSError as error:
        _fail(f"cannot enter the container: {error.strerror}")
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        sys.exit(code if code >= 0 else 128 - code)
    try:
        os.setsid()
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            spec["env"].setdefault("TERM", "xterm")
        _execute(spec, argv, lambda: linux.die_with_parent(signal.SIGKILL))
    except SetupError as error:
        _fail(str(error), error.code)
    except OSError as error:
        _fail(str(error))


def _fail(message: str, code: int = _CANNOT_RUN) -> NoReturn:
    os.write(2, f"exec: {message}\n".encode())
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
