"""The tarball of a support package. Only its owner may read it, and secrets are removed from everything in it."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .redaction import Scrubber, redacted


class Archive:
    """`with Archive(path, name) as archive:` creates the file, and removes it when the block fails.

    Entries are below the directory `name`. `missing` collects what could not be added. Raises OSError, which is a
    FileExistsError when the file exists already.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.scrubber = Scrubber()
        self.missing: list[str] = []
        self._path = path
        self._name = name

    def __enter__(self) -> Archive:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w:gz")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._tar.close()
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            self._file.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def text(self, name: str, content: str | bytes) -> None:
        """Add a text, from which the scrubber removes secrets."""
        if isinstance(content, bytes):
            content = content.decode(errors="replace")
        data = self.scrubber.text(content).encode(errors="replace")
        entry = tarfile.TarInfo(f"{self._name}/{name}")
        entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
        self._tar.addfile(entry, io.BytesIO(data))

    def document(self, name: str, content: Any) -> None:
        """Add a document as JSON, without secret fields (`redacted`) and scrubbed."""
        self.text(name, json.dumps(redacted(content), indent=2, ensure_ascii=False) + "\n")

    def lacks(self, what: str, why: object) -> None:
        """Note that something could not be added, and why."""
        self.missing.append(f"{what}: {why}")
