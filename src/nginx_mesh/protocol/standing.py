"""What a node reports of its sidecars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nginx_mesh.api.meta import ObjectKey


@dataclass(frozen=True, slots=True)
class SidecarStanding:
    """How far a sidecar is: `synced` has all that is for it; `behind` is for how many seconds it has not.

    `version` is that of the control plane's state which the sidecar acknowledged, None when that is not known. `reason`
    says why the sidecar refused its state or cannot be reached.
    """

    state: Literal["synced", "pending", "refused", "unreachable"]
    version: int | None
    reason: str = ""
    behind: float = 0.0


@dataclass(frozen=True, slots=True)
class SidecarReport:
    """A pod's sidecar.

    `live` says that it has had a state. `standing` is None while its node has no identity to give it.
    """

    pod: ObjectKey
    uid: str
    live: bool
    standing: SidecarStanding | None
