"""The `awssecret` upstream authority: ours is signed here, with a CA whose key is in AWS Secrets Manager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509

from . import aws, checks
from .base import MintedCa, UpstreamError
from .calls import BlockingCalls, Remembered
from .config import AwsSecretConfig
from .signing import Pem, SigningCa, load_signing_ca, roots_among


class AwsSecretAuthority:
    """An UpstreamAuthority that fetches the CA whenever it is needed, so that a new one is used at once."""

    def __init__(self, config: AwsSecretConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._calls = BlockingCalls(str(self))
        self._remembered = Remembered[tuple[x509.Certificate, ...]]()

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        """See UpstreamAuthority."""

        def sign() -> MintedCa:
            return self._fetch().mint(csr, not_before, not_after, self._clock())

        return await self._calls.run("signing a CA", sign)

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """See UpstreamAuthority."""
        return await self._remembered.get(lambda: self._calls.run("reading the roots", self._read_roots))

    async def close(self) -> None:
        """See UpstreamAuthority."""

    def __str__(self) -> str:
        return f"upstream authority awssecret ({self._config.cert_file_arn})"

    def _fetch(self) -> SigningCa:
        config = self._config
        client = aws.explained(config, lambda: aws.new_client(config, "secretsmanager"))
        certificate, key = (self._secret(client, name) for name in ("cert_file_arn", "key_file_arn"))
        return load_signing_ca(certificate, key, None, self._clock())

    def _read_roots(self) -> tuple[x509.Certificate, ...]:
        """The roots among the certificates. The key is not fetched for this."""
        config = self._config
        client = aws.explained(config, lambda: aws.new_client(config, "secretsmanager"))
        return checks.unexpired(roots_among(self._secret(client, "cert_file_arn")), self._clock())

    def _secret(self, client: Any, name: str) -> Pem:
        arn = getattr(self._config, name)
        answer = aws.explained(self._config, lambda: client.get_secret_value(SecretId=arn))
        source = f"config.{name} {arn}"
        text = answer.get("SecretString")
        if text is None:
            try:
                text = answer.get("SecretBinary", b"").decode()
            except UnicodeDecodeError:
                raise UpstreamError(f"{source}: is not text") from None
        return Pem(source, text)
