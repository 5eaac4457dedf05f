"""Whether and when a container that has ended starts again."""

from __future__ import annotations

import msgspec


class BackoffSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the wait before restarts, in seconds.

    The first restart is immediate, the second comes after `base`, each further one after twice the time, up to `cap`.
    After a run of at least `reset` the count starts again.
    """

    base: float = 10.0
    cap: float = 300.0
    reset: float = 600.0


KUBERNETES_BACKOFF = BackoffSettings()


def should_restart(policy: str, exit_code: int) -> bool:
    """Whether a restartPolicy (Always, OnFailure, Never) restarts a container with this exit code."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


class Backoff:
    """The wait before each restart of one container. `delay` is the last one; the next daemon continues with it."""

    def __init__(self, settings: BackoffSettings, delay: float | None = None) -> None:
        self._settings = settings
        self.delay = delay

    def next(self, ran_for: float) -> float:
        """Seconds to wait now that the container ended after `ran_for` seconds."""
        if self.delay is None or ran_for >= self._settings.reset:
            self.delay = 0.0
        else:
            self.delay = min(max(self.delay * 2, self._settings.base), self._settings.cap)
        return self.delay
