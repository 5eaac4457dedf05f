"""Volumes of pods: the kinds that the local mesh mounts, and the CSI volumes of the mesh itself."""

from __future__ import annotations

from .meta import Model


class KeyToPath(Model, frozen=True, kw_only=True):
    """items[] of a ConfigMap or Secret volume."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].configMap."""

    name: str
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class SecretVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].secret."""

    secret_name: str
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class EmptyDirVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].emptyDir."""

    medium: str = ""


class CSIVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].csi."""

    driver: str
    read_only: bool = False
    volume_attributes: dict[str, str] = {}


class Volume(Model, frozen=True, kw_only=True):
    """spec.volumes[]: the kinds that the local runtime can mount, and the sidecar's CSI volume."""

    name: str
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    csi: CSIVolumeSource | None = None
