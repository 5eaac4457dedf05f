"""Which version of its state each sidecar has, as the nodes say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from nginx_mesh.api.meta import ObjectKey

UpToDate = Callable[[ObjectKey, int], bool]
"""Whether a sidecar that has a version lacks nothing of the newest state."""


class Acknowledgements:
    """Versions by pod, None while a sidecar's version is not known; a sidecar that never had a state is not in it."""

    def __init__(self, up_to_date: UpToDate) -> None:
        self._up_to_date = up_to_date
        self._versions: dict[ObjectKey, int | None] = {}
        self._waiting: list[tuple[set[ObjectKey], asyncio.Event]] = []

    @property
    def versions(self) -> Mapping[ObjectKey, int | None]:
        """What sidecars have. To look at only."""
        return self._versions

    def set(self, pod: ObjectKey, version: int | None) -> None:
        """A sidecar has this version now."""
        self._versions[pod] = version
        if self._waiting and version is not None and self._up_to_date(pod, version):
            self.settle(pod)

    def settle(self, pod: ObjectKey) -> None:
        """Let nobody wait for this sidecar: it has what it needs, or will not take it."""
        for missing, done in self._waiting:
            missing.discard(pod)
            if not missing:
                done.set()

    def remove(self, pod: ObjectKey) -> None:
        """The sidecar is gone."""
        self._versions.pop(pod, None)
        self.settle(pod)

    async def wait(self, timeout: float) -> None:
        """Wait until every sidecar has acknowledged all that is for it now, at most `timeout` seconds."""
        missing = {
            pod for pod, version in self._versions.items() if version is None or not self._up_to_date(pod, version)
        }
        if not missing:
            return
        entry = (missing, asyncio.Event())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout):
                await entry[1].wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.remove(entry)
