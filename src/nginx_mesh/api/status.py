"""Errors that an API server answers with a Kubernetes Status object."""

from __future__ import annotations

from collections.abc import Iterable


class StatusError(Exception):
    """A request that cannot be granted.

    `reason` is a reason of metav1.Status, such as NotFound or Invalid; `details` has one line per fault.
    """

    def __init__(self, reason: str, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = list(details)
