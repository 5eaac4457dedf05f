"""The launcher's instructions for a container of a pod: environment, credentials, mounts. Pure, except for `lookup`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from nginx_mesh.api.containers import Container, EnvVar
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.local.net.networks import DEFAULT, PodNetworks
from nginx_mesh.local.paths import MeshPaths

from .volumes import ConfigError, Lookup, MountedVolume, data_of

VENV_MOUNT = "/opt/nginx-mesh/venv"
DEFAULT_PATH = f"{VENV_MOUNT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNPRIVILEGED_ID = 65534

# Capabilities that only affect the namespaces that a container has for itself.
_GRANTABLE = {
    *("CHOWN", "FOWNER", "IPC_LOCK", "KILL", "NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETPCAP"),
    *("SETUID", "SYS_NICE"),
}
_MAX_ID = 2**31 - 1
_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")
_MAP_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_OVERLAY_SPECIAL = re.compile(r"[,:\\]")


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of a directory or file of the host, or of `sub_path` in it, at `target` in the container."""

    source: str
    target: str
    sub_path: str = ""
    read_only: bool = False


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The instructions for launch.py. `image` is the read-only root, `disk` the directory of the writable layer.

    `masks` are directories that the container sees empty, with their modes. `files` are written into the root.
    `host_root` is true when the image is the host's own root. `open_files` is the soft RLIMIT_NOFILE.
    """

    argv: list[str]
    env: dict[str, str]
    working_dir: str
    hostname: str
    image: str
    host_root: bool
    disk: str
    masks: dict[str, int]
    files: dict[str, str]
    binds: list[Bind]
    read_only_root: bool
    uid: int
    gid: int
    groups: list[int]
    capabilities: list[str]
    open_files: int = 65536


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about the node that containers depend on. `images` maps image name prefixes to root file systems."""

    name: str
    cluster_domain: str
    images: Mapping[str, Path]
    networks: PodNetworks = DEFAULT


def launch_spec(
    pod: Pod,
    container: Container,
    field: str,
    *,
    node: NodeFacts,
    paths: MeshPaths,
    volumes: Mapping[str, MountedVolume],
    lookup: Lookup,
) -> LaunchSpec:
    """The launcher's instructions for `container`, which is at `field`, such as `spec.containers[0]`, of `pod`.

    Raises ConfigError with the name of a field that is invalid or refers to an object that does not exist.
    """
    image = next((root for prefix, root in node.images.items() if container.image.startswith(prefix)), None)
    if not container.command:
        raise ConfigError(
            f"{field}.command: the local runtime runs commands of this machine and cannot run the image "
            f"{container.image!r} by itself; say which command to run",
            "ImageNotRunnable",
        )
    if image is not None and _OVERLAY_SPECIAL.search(str(image)):
        raise ConfigError(f"{field}.image: the path {str(image)!r} of its files has a character that mounts cannot")
    hostname = pod_hostname(pod)
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, **environment(pod, container, field, node, lookup)}
    uid, gid, groups, capabilities = _credentials(pod, container, field)
    binds = _volume_binds(container, field, volumes)
    security = container.security_context
    return LaunchSpec(
        argv=[_checked(expand(text, env), f"{field}.command") for text in (*container.command, *container.args)],
        env=env,
        working_dir=container.working_dir,
        hostname=hostname,
        image=str(image or "/"),
        host_root=image is None,
        disk=str(paths.pod_disk(pod.metadata.uid) / "containers" / container.name),
        masks=_masks(paths) if image is None else {},
        files={
            "/etc/hostname": f"{hostname}\n",
            "/etc/hosts": _hosts(pod, hostname, node.cluster_domain),
            "/etc/resolv.conf": _resolv_conf(pod.metadata.namespace, node),
        },
        binds=binds if image is not None else [*_python_binds(paths), *binds],
        read_only_root=bool(security and security.read_only_root_filesystem),
        uid=uid,
        gid=gid,
        groups=groups,
        capabilities=capabilities,
    )


def environment(pod: Pod, container: Container, field: str, node: NodeFacts, lookup: Lookup) -> dict[str, str]:
    """The variables of envFrom and then of env, with references to earlier variables expanded. Raises ConfigError."""
    env: dict[str, str] = {}
    namespace = pod.metadata.namespace
    for index, source in enumerate(container.env_from):
        for kind, reference in (("ConfigMap", source.config_map_ref), ("Secret", source.secret_ref)):
            if reference is None:
                continue
            data = data_of(ObjectKey(kind, namespace, reference.name), lookup)
            if data is None and not reference.optional:
                raise ConfigError(f"{field}.envFrom[{index}]: {kind} {namespace}/{reference.name} does not exist")
            where = f"{field}.envFrom[{index}]"
            for name, content in (data or {}).items():
                env[_checked(source.prefix + name, where)] = _checked(_text(content, where), where)
    for index, variable in enumerate(container.env):
        where = f"{field}.env[{index}]"
        if not variable.name or "=" in variable.name:
            raise ConfigError(f"{where}.name: {variable.name!r} is not a name for a variable")
        value = _value(pod, variable, where, node, lookup, env)
        if value is not None:
            env[_checked(variable.name, where)] = _checked(value, where)
    return env


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` of a known variable; `$$` stands for one dollar sign."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def pod_hostname(pod: Pod) -> str:
    """The pod's hostname."""
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def _value(
    pod: Pod, variable: EnvVar, where: str, node: NodeFacts, lookup: Lookup, env: Mapping[str, str]
) -> str | None:
    source = variable.value_from
    if source is None:
        return expand(variable.value, env)
    if source.field_ref is not None:
        return _downward(pod, source.field_ref.field_path, f"{where}.valueFrom.fieldRef.fieldPath", node)
    for kind, selector in (("ConfigMap", source.config_map_key_ref), ("Secret", source.secret_key_ref)):
        if selector is None:
            continue
        key = ObjectKey(kind, pod.metadata.namespace, selector.name)
        data = data_of(key, lookup)
        if data is not None and selector.key in data:
            return _text(data[selector.key], where)
        if selector.optional:
            return None
        missing = "does not exist" if data is None else f"has no key {selector.key!r}"
        raise ConfigError(f"{where}.valueFrom: {key} {missing}")
    raise ConfigError(f"{where}.valueFrom: must be one of fieldRef, configMapKeyRef, secretKeyRef")


def _downward(pod: Pod, path: str, where: str, node: NodeFacts) -> str:
    simple = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": node.name,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
        "status.hostIP": str(node.networks.nodes[0]),
        "status.podIP": next(iter(pod.status.ips), ""),
        "status.podIPs": ",".join(pod.status.ips),
    }
    if path in simple:
        return simple[path]
    match = _MAP_FIELD.fullmatch(path)
    if match is None:
        raise ConfigError(f"{where}: {path!r} is not supported")
    values = pod.metadata.labels if match[1] == "labels" else pod.metadata.annotations
    return values.get(match[2], "")


def _credentials(pod: Pod, container: Container, field: str) -> tuple[int, int, list[int], list[str]]:
    own, common = container.security_context, pod.spec.security_context

    def setting(name: str) -> int | None:
        """The container's field, or else the pod's."""
        for context in (own, common):
            value: int | None = getattr(context, name, None)
            if value is not None:
                return value
        return None

    uid, gid = setting("run_as_user"), setting("run_as_group")
    uid = UNPRIVILEGED_ID if uid is None else uid
    if gid is None:
        gid = 0 if uid == 0 else UNPRIVILEGED_ID
    groups = [common.fs_group] if common and common.fs_group is not None else []
    for name, number in (("runAsUser", uid), ("runAsGroup", gid), *(("fsGroup", group) for group in groups)):
        if not 0 <= number <= _MAX_ID:
            raise ConfigError(f"{field}.securityContext.{name}: {number} is not between 0 and {_MAX_ID}")
    if uid == 0 and setting("run_as_non_root"):
        raise ConfigError(f"{field}.securityContext.runAsNonRoot: runAsUser is 0")
    if own and own.privileged:
        raise ConfigError(f"{field}.securityContext.privileged: the local runtime runs no privileged containers")
    added = own.capabilities.add if own and own.capabilities else []
    capabilities = sorted({name.upper().removeprefix("CAP_") for name in added})
    for name in capabilities:
        if name not in _GRANTABLE:
            raise ConfigError(
                f"{field}.securityContext.capabilities.add: {name!r} is not one of {', '.join(sorted(_GRANTABLE))}"
            )
    return uid, gid, groups, capabilities


def _volume_binds(container: Container, field: str, volumes: Mapping[str, MountedVolume]) -> list[Bind]:
    binds = []
    for index, mount in enumerate(container.volume_mounts):
        where = f"{field}.volumeMounts[{index}]"
        volume = volumes.get(mount.name)
        if volume is None:
            raise ConfigError(f"{where}.name: the pod has no volume {mount.name!r}")
        target = _checked(mount.mount_path, where).rstrip("/")
        if not target.startswith("/") or ".." in target.split("/"):
            raise ConfigError(f"{where}.mountPath: {mount.mount_path!r} is not an absolute path below /")
        sub_path = _checked(mount.sub_path, where).strip("/")
        if any(part in ("", ".", "..") for part in sub_path.split("/")) and sub_path:
            raise ConfigError(f"{where}.subPath: {mount.sub_path!r} is not a plain relative path")
        read_only = volume.read_only or mount.read_only
        binds.append(Bind(source=str(volume.source), target=target, sub_path=sub_path, read_only=read_only))
    return binds


def _python_binds(paths: MeshPaths) -> list[Bind]:
    """The mounts of the daemon's own Python, so that a command finds its packages even below directories of root."""
    binds = [Bind(source=sys.prefix, target=VENV_MOUNT, read_only=True)]
    if any(Path(sys.base_prefix).is_relative_to(mask) for mask in _masks(paths)):
        binds.append(Bind(source=str(Path(sys.base_prefix).resolve()), target=sys.base_prefix, read_only=True))
    return binds


def _masks(paths: MeshPaths) -> dict[str, int]:
    """Directories of the host that containers see empty, with their modes."""
    masks = {"/root": 0o711, "/run": 0o755, "/tmp": 0o1777, "/var/lib/nginx-mesh": 0o700}  # noqa: S108
    meshes = (path for path in paths.shared_roots if not any(path.is_relative_to(mask) for mask in masks))
    return masks | {str(path): 0o700 for path in meshes}


def _hosts(pod: Pod, hostname: str, cluster_domain: str) -> str:
    names = hostname
    if pod.spec.subdomain:
        names = f"{hostname}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain} {hostname}"
    own = [f"{address}\t{names}" for address in pod.status.ips]
    return "\n".join(["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", *own, ""])


def _resolv_conf(namespace: str, node: NodeFacts) -> str:
    cluster_domain = node.cluster_domain
    search = f"{namespace}.svc.{cluster_domain} svc.{cluster_domain} {cluster_domain}"
    return f"nameserver {node.networks.nodes[0]}\nsearch {search}\noptions ndots:5\n"


def _text(value: bytes, where: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: the value is not UTF-8") from None


def _checked(text: str, where: str) -> str:
    if "\0" in text:
        raise ConfigError(f"{where}: has a NUL character")
    return text
