"""The mesh's settings in force: those that it was installed with, overlaid by its MeshConfig."""

from __future__ import annotations

import msgspec

from nginx_mesh.api import kinds
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey, ObjectMeta
from nginx_mesh.api.nsm import MeshConfig, MeshConfigClass, MeshConfigClassSpec
from nginx_mesh.api.resource import ObjectReader, Resource
from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE, MESH_CONFIG_CLASS_NAME, MESH_CONFIG_NAME, MeshSettings
from nginx_mesh.api.status import StatusError

CONFIG_KEY = ObjectKey(MeshConfig.KIND, CONTROL_PLANE_NAMESPACE, MESH_CONFIG_NAME)
"""The only MeshConfig that the mesh uses."""

_CONTROLLER_NAME = "nsm.nginx.com/nginx-mesh-controller"


def settings_in_force(installed: MeshSettings, objects: ObjectReader) -> MeshSettings:
    """The settings that the mesh was installed with, overlaid by the MeshConfig if there is one."""
    config = objects.get(CONFIG_KEY)
    return installed if config is None else installed.with_config(msgspec.convert(config, MeshConfig))


def changed_config(installed: MeshSettings, current: MeshSettings, changes: Resource) -> Resource:
    """The MeshConfig that makes the `current` settings those with these `changes`, by the names of MeshSettings.

    Raises StatusError for values that are not valid, and for settings that may not change while a mesh runs.
    """
    try:
        wanted = msgspec.convert({**msgspec.to_builtins(current), **changes}, MeshSettings)
    except (msgspec.ValidationError, FieldError) as error:
        raise StatusError("Invalid", str(error)) from None
    config = wanted.to_config()
    if installed.with_config(config) != wanted:
        fixed = ", ".join(sorted(changes))
        raise StatusError("Invalid", f"not all of these may change while the mesh runs: {fixed}")
    return kinds.to_dict(config)


def first_config(installed: MeshSettings) -> list[Resource]:
    """The MeshConfig and its class as a new mesh has them."""
    config_class = MeshConfigClass(
        metadata=ObjectMeta(name=MESH_CONFIG_CLASS_NAME),
        spec=MeshConfigClassSpec(controller_name=_CONTROLLER_NAME),
    )
    return [kinds.to_dict(config_class), kinds.to_dict(installed.to_config())]
