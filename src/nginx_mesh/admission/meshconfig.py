"""MeshConfigs: a mesh uses only one, so another would change nothing and is refused."""

from __future__ import annotations

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE, MESH_CONFIG_NAME


def check_mesh_config(key: ObjectKey) -> None:
    """Raise FieldError unless this is the key of the MeshConfig that the mesh uses."""
    if (key.namespace, key.name) != (CONTROL_PLANE_NAMESPACE, MESH_CONFIG_NAME):
        only = f"{CONTROL_PLANE_NAMESPACE}/{MESH_CONFIG_NAME}"
        raise FieldError("metadata.name", f"the only MeshConfig that the mesh uses is {only}")
