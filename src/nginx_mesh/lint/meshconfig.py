"""Rules for MeshConfigs."""

from __future__ import annotations

from nginx_mesh.api.nsm import MeshConfig

from .describedmesh import DescribedMesh
from .rules import ALLOWS_ALL, NOT_STRICT, Findings


def mesh_configs(mesh: DescribedMesh) -> Findings:
    """Findings about MeshConfigs with settings that suit a trial, but not production."""
    for config in mesh.of_kind(MeshConfig):
        mode, access = config.spec.mtls.mode, config.spec.access_control_mode
        if mode in ("off", "permissive"):
            yield NOT_STRICT.at(config.key, "spec.mtls.mode", f'"{mode}" lets callers in that prove no identity')
        if access == "allow":
            message = '"allow" lets everybody call what no TrafficTarget protects'
            yield ALLOWS_ALL.at(config.key, "spec.accessControlMode", message)
