"""What a mesh's control plane tells for a support package."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any

from nginx_mesh.version import version

from .control_plane import SUPPORT_DOCUMENTS, ControlPlane
from .errors import ApiError, ControlPlaneUnreachableError

if TYPE_CHECKING:
    from nginx_mesh.support.archive import Archive


def collect_control_plane_facts(control_plane: ControlPlane, archive: Archive) -> bool:
    """Archive the documents and metrics of the control plane, and the states of sidecars.

    Returns False when the control plane does not answer, in which case something of this is missing.
    """
    for name, path in SUPPORT_DOCUMENTS.items():
        try:
            content = control_plane.support_document(name)
        except ApiError as error:
            # A refusal is how /readyz says that something is not ready, and it is no fault of an authority elsewhere.
            content = {"error": error.message}
        except ControlPlaneUnreachableError as error:
            archive.lacks(f"daemon {path} and what follows it", error)
            return False
        archive.document(name, content)
    try:
        archive.text("daemon/metrics.txt", control_plane.metrics())
        for line in control_plane.sidecar_states():
            part = json.loads(line)
            archive.document(part["name"], part["content"])
    except (ApiError, ControlPlaneUnreachableError, ValueError) as error:
        archive.lacks("metrics of the daemon, or states of sidecars", error)
    return True


def client_versions() -> dict[str, Any]:
    """Return the versions of this program, of what it runs on and of the packages that it uses."""
    return {
        "nginx-meshctl": version(),
        "python": sys.version,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "os": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "packages": {found.metadata["Name"]: found.version for found in _packages()},
    }


def _packages() -> Iterable[metadata.Distribution]:
    return sorted(metadata.distributions(), key=lambda each: str(each.metadata["Name"]))
