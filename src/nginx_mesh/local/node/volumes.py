"""The volumes of pods: ConfigMaps and Secrets as files, scratch space, the directory shared with the node."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from nginx_mesh.api.config import ConfigMap, Secret
from nginx_mesh.api.csi import CSI_DRIVER, is_workload_api
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.volumes import KeyToPath, Volume
from nginx_mesh.local.files import write_file
from nginx_mesh.local.paths import MeshPaths
from nginx_mesh.protocol.control import SIDECAR_UID

Lookup = Callable[[ObjectKey], Object | None]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class ConfigError(Exception):
    """A pod refers to an object that does not exist, or needs something unsupported.

    `reason` is one of a container's waiting state.
    """

    def __init__(self, message: str, reason: str = "CreateContainerConfigError") -> None:
        super().__init__(message)
        self.reason = reason


class ProjectedFile(msgspec.Struct, frozen=True):
    """A file of a ConfigMap or Secret volume."""

    content: bytes
    mode: int


class MountedVolume(msgspec.Struct, frozen=True):
    """The path of a volume on the host, and whether containers may only read it."""

    source: Path
    read_only: bool


def data_of(key: ObjectKey, lookup: Lookup) -> dict[str, bytes] | None:
    """The contents of a ConfigMap or Secret, or None when it does not exist. Raises ConfigError on bad base64."""
    found = lookup(key)
    if isinstance(found, ConfigMap):
        return {name: text.encode() for name, text in found.data.items()} | _decoded(key, found.binary_data)
    if isinstance(found, Secret):
        return _decoded(key, found.data) | {name: text.encode() for name, text in found.string_data.items()}
    return None


def mount_volumes(pod: Pod, paths: MeshPaths, lookup: Lookup) -> dict[str, MountedVolume]:
    """Make all volumes of a pod, and update the files of its ConfigMaps and Secrets. Idempotent. Raises ConfigError."""
    mounted: dict[str, MountedVolume] = {}
    for index, volume in enumerate(pod.spec.volumes):
        where = f"spec.volumes[{index}]"
        if not _LABEL.fullmatch(volume.name):
            raise ConfigError(f"{where}.name: {volume.name!r} is not a DNS label", "FailedMount")
        mounted[volume.name] = _mount(pod, volume, where, paths, lookup)
    return mounted


def projected_objects(pod: Pod) -> set[ObjectKey]:
    """The ConfigMaps and Secrets that the pod mounts."""
    keys = set()
    for volume in pod.spec.volumes:
        if volume.config_map:
            keys.add(ObjectKey("ConfigMap", pod.metadata.namespace, volume.config_map.name))
        if volume.secret:
            keys.add(ObjectKey("Secret", pod.metadata.namespace, volume.secret.secret_name))
    return keys


def write_projection(directory: Path, files: dict[str, ProjectedFile], group: int | None) -> None:
    """Make `directory` contain exactly `files` (by relative path). Each file is replaced atomically.

    Everything belongs to root. `group`, if given, may read all of it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o755)
    wanted = {directory / name: file for name, file in files.items()}
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path in other.parents for other in wanted):
                path.rmdir()
        elif path not in wanted:
            path.unlink()
    for path, file in wanted.items():
        for parent in reversed(path.relative_to(directory).parents[:-1]):
            (directory / parent).mkdir(mode=0o755, exist_ok=True)
        _write_file(path, file, group)


def _write_file(path: Path, file: ProjectedFile, group: int | None) -> None:
    mode = file.mode if group is None else file.mode | 0o440
    if path.exists():
        status = path.stat()
        if status.st_mode & 0o7777 == mode and status.st_gid == (group or 0) and path.read_bytes() == file.content:
            return
    write_file(path, file.content, mode=mode, group=group or 0)


def _mount(pod: Pod, volume: Volume, where: str, paths: MeshPaths, lookup: Lookup) -> MountedVolume:
    namespace, uid = pod.metadata.namespace, pod.metadata.uid
    group = pod.spec.security_context.fs_group if pod.spec.security_context else None
    directory = paths.pod_dir(uid) / "volumes" / volume.name
    if volume.config_map is not None:
        source = volume.config_map
        key = ObjectKey("ConfigMap", namespace, source.name)
        files = _project(key, source.items, source.default_mode, source.optional, f"{where}.configMap", lookup)
        write_projection(directory, files, group)
        return MountedVolume(directory, read_only=True)
    if volume.secret is not None:
        secret = volume.secret
        key = ObjectKey("Secret", namespace, secret.secret_name)
        files = _project(key, secret.items, secret.default_mode, secret.optional, f"{where}.secret", lookup)
        write_projection(directory, files, group)
        return MountedVolume(directory, read_only=True)
    if volume.empty_dir is not None:
        if volume.empty_dir.medium != "Memory":
            directory = paths.pod_disk(uid) / "volumes" / volume.name
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
            if group is not None:
                os.chown(directory, 0, group)
            directory.chmod(0o777 if group is None else 0o2777)
        return MountedVolume(directory, read_only=False)
    if is_workload_api(volume):
        directory = paths.workload_api_dir(uid)
        directory.mkdir(mode=0o755, exist_ok=True)
        return MountedVolume(directory, read_only=True)
    if volume.csi is not None and volume.csi.driver == CSI_DRIVER:
        directory = paths.pod_socket_dir(uid)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(directory, SIDECAR_UID, SIDECAR_UID)
        return MountedVolume(directory, read_only=volume.csi.read_only)
    if volume.csi is not None:
        raise ConfigError(f"{where}.csi.driver: {volume.csi.driver!r} is not supported", "FailedMount")
    raise ConfigError(f"{where}: must be one of configMap, secret, emptyDir", "FailedMount")


def _project(
    key: ObjectKey, items: list[KeyToPath], mode: int, optional: bool, where: str, lookup: Lookup
) -> dict[str, ProjectedFile]:
    data = data_of(key, lookup)
    if data is None:
        if optional:
            return {}
        raise ConfigError(f"{where}: {key} does not exist", "FailedMount")
    files: dict[str, ProjectedFile] = {}
    for index, item in enumerate(items or [KeyToPath(key=name, path=name) for name in data]):
        field = f"{where}.items[{index}]" if items else where
        if item.key not in data:
            if optional:
                continue
            raise ConfigError(f"{field}.key: {key} has no key {item.key!r}", "FailedMount")
        path = PurePosixPath(item.path)
        if path.is_absolute() or not path.parts or not all(_is_file_name(part) for part in path.parts):
            raise ConfigError(f"{field}.path: {item.path!r} is not a relative path of plain file names", "FailedMount")
        file_mode = mode if item.mode is None else item.mode
        if not 0 <= file_mode <= 0o777:
            raise ConfigError(f"{field}.mode: {file_mode} is not between 0 and 0777", "FailedMount")
        files[str(path)] = ProjectedFile(data[item.key], file_mode)
    for name in files:
        if any(str(parent) in files for parent in PurePosixPath(name).parents):
            raise ConfigError(f"{where}: {name!r} is below another file", "FailedMount")
    return files


def _is_file_name(name: str) -> bool:
    return bool(_DATA_KEY.fullmatch(name)) and not name.startswith("..") and name != "."


def _decoded(key: ObjectKey, data: dict[str, str]) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(text, validate=True) for name, text in data.items()}
    except (binascii.Error, ValueError):
        raise ConfigError(f"{key}: a value is not base64") from None
