"""The `disk` upstream authority: a CA's certificate and key in files, which are read again whenever they are needed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cryptography import x509

from . import checks
from .base import MintedCa, UpstreamError
from .calls import BlockingCalls
from .config import DiskConfig, read_named_file, warn_of_open_key
from .signing import Pem, SigningCa, load_signing_ca

log = logging.getLogger(__name__)


class DiskAuthority:
    """An UpstreamAuthority that signs with a CA in files.

    When the files become unfit, that is logged, and the CA that they held before remains in use.
    """

    def __init__(self, config: DiskConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._calls = BlockingCalls(str(self))
        self._read: list[Pem | None] = []
        self._ca: SigningCa | None = None
        self._complaint = ""

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        """See UpstreamAuthority."""

        def sign() -> MintedCa:
            return self._current().mint(csr, not_before, not_after, self._clock())

        return await self._calls.run("signing a CA", sign)

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """See UpstreamAuthority."""
        return await self._calls.run(
            "reading the roots", lambda: checks.unexpired(self._current().roots, self._clock())
        )

    async def close(self) -> None:
        """See UpstreamAuthority."""

    def __str__(self) -> str:
        return f"upstream authority disk ({self._config.cert_file_path})"

    def _current(self) -> SigningCa:
        try:
            read = [self._pem(key) for key in ("cert_file_path", "key_file_path", "bundle_file_path")]
            if self._ca is None or read != self._read:
                certificate, key, bundle = read
                assert certificate is not None and key is not None  # noqa: S101 - the configuration has both
                warn_of_open_key(self._config.key_file_path)
                self._ca, self._read = load_signing_ca(certificate, key, bundle, self._clock()), read
            self._complaint = ""
        except UpstreamError as error:
            if self._ca is None:
                raise
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("%s: files are unfit, what they held before stays in use: %s", self, error)
        return self._ca

    def _pem(self, key: str) -> Pem | None:
        path = getattr(self._config, key)
        if path is None:
            return None
        return Pem(f"config.{key} {path}", read_named_file(key, path))
