"""The recipe of the sidecar image: Debian 13 with its nginx, our C module built against it, our files.

The result is a root filesystem. The local runtime runs pods' sidecars from it; the same tree becomes the container
image.
Each step is cached under its inputs, so that a change of a Lua file costs a copy and not a bootstrap.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nginx_mesh.version import version

SUITE = "trixie"
RUNTIME_PACKAGES = (
    "iproute2",
    "libnginx-mod-http-lua",
    "libnginx-mod-stream",
    "lua-cjson",
    "nftables",
    "nginx",
)
BUILD_PACKAGES = ("gcc", "libc6-dev", "make", "nginx-dev")
MODULE = "ngx_http_mesh_module.so"
CACHE = Path("/var/cache/nginx-mesh")

_HERE = Path(__file__).parent
# What the image has no use for.
_SUPERFLUOUS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)
_BUILD_MODULE = """
set -eu
cp -r /usr/share/nginx/src /build/nginx
cd /build/nginx
. ./conf_flags
bash ./configure "${NGX_CONF_FLAGS[@]}" --with-stream --with-stream_ssl_module \
    --with-cc-opt='-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wformat -Werror=format-security \
-D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection' \
    --with-ld-opt='-Wl,-z,relro -Wl,-z,now' --add-dynamic-module=/build/module
make -s -f objs/Makefile objs/ngx_http_mesh_module.so
"""

Progress = Callable[[str], None]


class ImageError(Exception):
    """The image cannot be built; the message says which step failed and ends with what it printed."""


def ensure_image(progress: Progress, cache: Path = CACHE) -> Path:
    """Give the root filesystem of the sidecar image, building what is not in `cache`.

    `progress` gets a line for each step that takes time. Needs root and the Debian package archive (only to build).
    Raises ImageError.
    """
    if os.geteuid() != 0:
        raise ImageError("building the sidecar image needs root: run this with sudo")
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    sources = _digest(_sources("module"), " ".join(BUILD_PACKAGES), _BUILD_MODULE, SUITE)
    base_key = _digest((), SUITE, " ".join(RUNTIME_PACKAGES))
    files = _digest((*_sources("lua"), *_sources("rootfs")), sources, base_key)
    image = cache / f"sidecar-{files}"
    with _locked(cache), _umask(0o022):
        if not image.exists():
            _sweep(cache)
            base = _ensure_tree(cache / f"base-{base_key}", RUNTIME_PACKAGES, "installing nginx (Debian 13)", progress)
            module = _ensure_module(cache, sources, base, progress)
            progress("assembling the sidecar image")
            with _building(image) as tree:
                _run("assembling", "cp", "--archive", "--reflink=auto", f"{base}/.", str(tree))
                _install(tree, module)
    return image


def image_version(image: Path) -> str:
    """What tells one sidecar image from another: this release, its content and its nginx. Raises ImageError."""
    nginx = _nginx_version(image)
    return f"{version()} ({image.name.removeprefix('sidecar-')}, nginx {nginx})"


def _install(tree: Path, module: Path) -> None:
    _copy(module, tree / "usr/lib/nginx/modules" / MODULE)
    for directory, target in (("lua", tree / "usr/lib/nginx-mesh/lua"), ("rootfs", tree)):
        for source in _sources(directory):
            _copy(source, target / source.relative_to(_HERE / directory))
    for mountpoint in ("run/nginx-mesh", "tmp", "proc", "dev", "sys"):
        (tree / mountpoint).mkdir(parents=True, exist_ok=True)
    for path in _SUPERFLUOUS:
        shutil.rmtree(tree / path, ignore_errors=True)
    with (tree / "etc/passwd").open("a") as passwd:
        passwd.write("nginx-mesh:x:2102:2102::/nonexistent:/usr/sbin/nologin\n")
    with (tree / "etc/group").open("a") as group:
        group.write("nginx-mesh:x:2102:\n")


def _copy(source: Path, target: Path) -> None:
    """Copy a file for everyone to read: the sidecar is not root, and a clone may have been made for one user only."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if _executable(source) else 0o644)


def _executable(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXUSR)


def _ensure_module(cache: Path, key: str, base: Path, progress: Progress) -> Path:
    nginx = _nginx_version(base)
    module = cache / f"module-{key}-{nginx}" / MODULE
    if module.exists():
        return module
    packages = (*RUNTIME_PACKAGES, *BUILD_PACKAGES)
    builder_key = _digest((), SUITE, " ".join(packages), nginx)
    builder = _ensure_tree(cache / f"builder-{builder_key}", packages, "installing the compiler (Debian 13)", progress)
    if _nginx_version(builder) != nginx:
        raise ImageError(f"the archive's nginx changed while building ({nginx}): remove {cache} and try again")
    progress("compiling the nginx module")
    with tempfile.TemporaryDirectory(dir=builder, prefix="build-") as scratch:
        shutil.copytree(_HERE / "module", Path(scratch) / "module")
        script = _BUILD_MODULE.replace("/build/", f"/{Path(scratch).name}/")
        _run("compiling the nginx module", "chroot", str(builder), "bash", "-c", script)
        with _building(module.parent) as tree:
            _copy(Path(scratch) / "nginx/objs" / MODULE, tree / MODULE)
    return module


def _ensure_tree(target: Path, packages: tuple[str, ...], what: str, progress: Progress) -> Path:
    if not target.exists():
        progress(what)
        with _building(target) as tree:
            include = f"--include={','.join(packages)}"
            _run(what, "mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, str(tree))
    return target


def _nginx_version(tree: Path) -> str:
    query = ("dpkg-query", "--admindir", str(tree / "var/lib/dpkg"), "--show", "--showformat=${Version}", "nginx")
    return _run("asking for nginx's version", *query)


def _sources(directory: str) -> tuple[Path, ...]:
    return tuple(sorted(path for path in (_HERE / directory).rglob("*") if path.is_file()))


def _digest(files: tuple[Path, ...], *texts: str) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(_HERE)}\0{_executable(path)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def _sweep(cache: Path) -> None:
    """Remove what builds left that were cut off (killed, or the power failed); nobody else builds while we do."""
    for abandoned in (*cache.glob(".building-*"), *cache.glob("builder-*/build-*")):
        shutil.rmtree(abandoned, ignore_errors=True)


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """Give a directory that becomes `target` when the block ends well, and vanishes when it does not."""
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".building-"))
    try:
        scratch.chmod(0o755)
        yield scratch
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(what: str, *command: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # root's own lacks them after a plain `su`
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": path},
        )
    except FileNotFoundError as error:
        raise ImageError(f"{what}: {command[0]} is not installed: run `make setup`") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise ImageError(f"{what} failed (exit code {done.returncode}):\n{tail}")
    return done.stdout
