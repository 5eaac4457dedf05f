"""The datastore of an identity server: registrations, attested nodes, join tokens, bundles, CA records."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .base import Datastore, DatastoreError
from .config import IN_MEMORY, DatastoreConfig, with_absolute_files

__all__ = ["IN_MEMORY", "Datastore", "DatastoreConfig", "DatastoreError", "open_datastore", "with_absolute_files"]


def open_datastore(config: DatastoreConfig, directory: Path, clock: Callable[[], float] = time.time) -> Datastore:
    """The datastore that `config` names, its schema brought up to date.

    `directory` is where a relative path of an SQLite database begins; `clock` gives Unix seconds. Raises
    DatastoreError, which names the key when the configuration is at fault. Blocks: call it in a thread.
    """
    from .sql import SqlDatastore  # SQLAlchemy is heavy

    return SqlDatastore(config, directory, clock)
