"""The `disk` key manager: one file per secret in a directory that only its owner can open.

A file is a header line with the SHA-256 of the rest, then the secret. So a file that was cut or altered is noticed and
reported, and it is left for a person to look at. One process uses a directory at a time.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from nginx_mesh.identity.common.files import privacy_fault

from .base import KeyManagerError, check_name

_HEADER = b"nginx-mesh secret 1 sha256 "
_TEMPORARY = ".new-"


class DiskKeyManager:
    """Keeps secrets in `directory` (created with mode 0700; files have mode 0600), atomically and durably.

    Raises KeyManagerError when the directory, or a file in it, is not ours alone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(directory, os.lstat(directory), stat.S_IFDIR)
            for abandoned in directory.glob(f"{_TEMPORARY}*"):  # left by a process that was killed while it wrote
                abandoned.unlink()
        except OSError as error:
            raise KeyManagerError(f"{directory}: {error.strerror}") from error

    def get(self, name: str) -> bytes | None:
        """See KeyManager."""
        check_name(name)
        path = self._directory / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                _check_private(path, os.fstat(descriptor), stat.S_IFREG)
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    content = file.read()
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyManagerError(f"{path}: {error.strerror}") from error
        header, _, secret = content.partition(b"\n")
        if header != _header(secret):
            raise KeyManagerError(f"{path}: damaged (its checksum does not match); restore it from a backup or move it")
        return secret

    def put(self, name: str, secret: bytes) -> None:
        """See KeyManager. Refuses to replace a damaged file."""
        self.get(name)
        path = self._directory / name
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=self._directory)  # mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_header(secret) + b"\n" + secret)
                    file.flush()
                    os.fsync(descriptor)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            _sync_directory(self._directory)
        except OSError as error:
            raise KeyManagerError(f"{path}: {error.strerror}") from error

    def delete(self, name: str) -> None:
        """See KeyManager. A damaged file is left for a person to look at."""
        if self.get(name) is None:
            return
        path = self._directory / name
        try:
            path.unlink()
            _sync_directory(self._directory)
        except OSError as error:
            raise KeyManagerError(f"{path}: {error.strerror}") from error

    def __str__(self) -> str:
        return f"disk key manager in {self._directory}"


def _header(secret: bytes) -> bytes:
    return _HEADER + hashlib.sha256(secret).hexdigest().encode()


def _check_private(path: Path, status: os.stat_result, kind: int) -> None:
    if fault := privacy_fault(path, status, kind):
        raise KeyManagerError(fault)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
