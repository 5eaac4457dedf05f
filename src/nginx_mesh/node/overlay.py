"""A sidecar's state as its node gives it: what the control plane compiled, with the pod's SVID laid over it.

Private keys are made on the node and stay there: the control plane's updates hold no identity. The versions that
sidecars acknowledge are the node's own, as a state changes with its SVID too; the node remembers which version of the
control plane's state each of them stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.protocol.state import Identity, Update

IDENTITY_KEY = "identity"

Source = Callable[[ObjectKey, int | None], Update | None]
"""Gives what takes a pod's sidecar from a version to the newest, all of it for None; None when it has no sidecar."""


@dataclass(slots=True)
class _Given:
    """What a version of the node's is made of: the control plane's version, and the identity that was laid over it."""

    plane: int
    identity: Identity | None


class IdentityOverlay:
    """Gives the updates of a node's sidecars.

    `source` gives the control plane's. Versions count up from `first_version`, for which milliseconds of the wall
    clock will do: so they grow from process to process, which helps people who compare logs. Nothing relies on it, as a
    process gives every sidecar a full state before any update.
    """

    def __init__(self, source: Source, first_version: int) -> None:
        self._source = source
        self._version = first_version
        self._identities: dict[ObjectKey, Identity] = {}
        self._given: dict[ObjectKey, dict[int, _Given]] = {}

    def set_identity(self, pod: ObjectKey, identity: Identity | None) -> None:
        """The pod's SVID and trust bundles from now on; None takes them away."""
        if identity is None:
            self._identities.pop(pod, None)
        else:
            self._identities[pod] = identity

    def identity(self, pod: ObjectKey) -> Identity | None:
        """The pod's identity, None while it has none."""
        return self._identities.get(pod)

    def forget(self, pod: ObjectKey) -> None:
        """The pod is gone."""
        self._identities.pop(pod, None)
        self._given.pop(pod, None)

    def plane_version(self, pod: ObjectKey, version: int | None) -> int | None:
        """Which version of the control plane's state a sidecar's version stands for, None when that is not known."""
        given = None if version is None else self._given.get(pod, {}).get(version)
        return None if given is None else given.plane

    def update_for(self, pod: ObjectKey, base: int | None) -> Update | None:
        """What takes a sidecar from the node's version `base` to the newest state with the newest identity.

        None when it has no sidecar. When nothing changed, the update is empty and its version is `base`.
        """
        identity = self._identities.get(pod)
        given = None if base is None else self._given.get(pod, {}).get(base)
        update = self._source(pod, None if given is None else given.plane)
        if update is None:
            return None
        if base is None or given is None or update.base is None:
            entries = update.set_ if identity is None else {**update.set_, IDENTITY_KEY: identity}
            return self._give(pod, None, msgspec.structs.replace(update, base=None, set_=entries), identity)
        if given.identity == identity and not (update.set_ or update.delete or update.endpoints):
            given.plane = update.version
            return msgspec.structs.replace(update, base=base, version=base)
        if given.identity != identity:
            if identity is None:
                update = msgspec.structs.replace(update, delete=[*update.delete, IDENTITY_KEY])
            else:
                update = msgspec.structs.replace(update, set_={**update.set_, IDENTITY_KEY: identity})
        return self._give(pod, base, update, identity)

    def _give(self, pod: ObjectKey, base: int | None, update: Update, identity: Identity | None) -> Update:
        self._version += 1
        known = self._given.get(pod, {})
        # Only what the sidecar has, and what it is about to be sent, can be asked about again.
        kept = {base: known[base]} if base is not None else {}
        self._given[pod] = {**kept, self._version: _Given(update.version, identity)}
        return msgspec.structs.replace(update, base=base, version=self._version)
