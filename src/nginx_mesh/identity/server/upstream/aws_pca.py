"""The `aws_pca` upstream authority: a CA of AWS Private Certificate Authority signs ours as its subordinate."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from . import aws, checks
from .base import MintedCa, UpstreamError
from .calls import BlockingCalls, Remembered
from .config import AwsPcaConfig, read_named_file

_TEMPLATE = "arn:{partition}:acm-pca:::template/SubordinateCACertificate_PathLen0/V1"
_ISSUE_SECONDS = 8.0
_POLL_SECONDS = 0.5


T = TypeVar("T")


class AwsPcaAuthority:
    """An UpstreamAuthority that asks AWS Private CA. The chain of what is issued has to lead to the configured CA."""

    def __init__(self, config: AwsPcaConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._calls = BlockingCalls(str(self))
        self._remembered = Remembered[tuple[x509.Certificate, ...]]()

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        """See UpstreamAuthority. AWS sets the start of the validity itself, to an hour ago."""
        return await self._calls.run(
            "signing a CA", lambda: self._ask(lambda client: self._sign(client, csr, not_after))
        )

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """See UpstreamAuthority."""
        return await self._remembered.get(
            lambda: self._calls.run("reading the roots", lambda: self._ask(self._read_roots))
        )

    async def close(self) -> None:
        """See UpstreamAuthority."""

    def __str__(self) -> str:
        return f"upstream authority aws_pca ({self._config.certificate_authority_arn})"

    def _ask(self, question: Callable[[Any], T]) -> T:
        config = self._config
        return aws.explained(config, lambda: question(aws.new_client(config, "acm-pca", config.endpoint)))

    def _sign(self, client: Any, csr: x509.CertificateSigningRequest, not_after: float) -> MintedCa:
        config, arn = self._config, self._config.certificate_authority_arn
        authority = client.describe_certificate_authority(CertificateAuthorityArn=arn)["CertificateAuthority"]
        if authority["Status"] != "ACTIVE":
            raise UpstreamError(f"the CA is {authority['Status']}; it issues only while it is ACTIVE")
        own, *above = self._authority(client)
        partition = arn.split(":")[1]
        issued = client.issue_certificate(
            CertificateAuthorityArn=arn,
            Csr=csr.public_bytes(serialization.Encoding.PEM),
            SigningAlgorithm=config.signing_algorithm
            or authority["CertificateAuthorityConfiguration"]["SigningAlgorithm"],
            TemplateArn=config.ca_signing_template_arn or _TEMPLATE.format(partition=partition),
            # AWS refuses what would outlive the CA.
            Validity={"Type": "ABSOLUTE", "Value": int(min(not_after, own.not_valid_after_utc.timestamp()))},
            # The same request again, within minutes, gets the same certificate.
            IdempotencyToken=hashlib.sha256(csr.public_bytes(serialization.Encoding.DER)).hexdigest()[:36],
        )
        answer = self._wait(client, issued["CertificateArn"])
        certificate = _parse("the certificate", checks.parse_certificate, answer["Certificate"])
        return checks.accept(csr, certificate, [own, *above], self._roots(own, *above), self._clock())

    def _wait(self, client: Any, certificate_arn: str) -> Any:
        deadline = time.monotonic() + _ISSUE_SECONDS
        while True:
            try:
                return client.get_certificate(
                    CertificateAuthorityArn=self._config.certificate_authority_arn, CertificateArn=certificate_arn
                )
            except client.exceptions.RequestInProgressException:
                if time.monotonic() + _POLL_SECONDS > deadline:
                    raise UpstreamError(f"AWS did not issue the certificate within {_ISSUE_SECONDS:g} s") from None
            time.sleep(_POLL_SECONDS)

    def _authority(self, client: Any) -> list[x509.Certificate]:
        """The CA's certificate, then those above it and the supplemental ones."""
        config = self._config
        answer = client.get_certificate_authority_certificate(CertificateAuthorityArn=config.certificate_authority_arn)
        own = _parse("the CA's certificate", checks.parse_certificate, answer["Certificate"])
        chain = answer.get("CertificateChain")
        above = list(_parse("the CA's chain", checks.parse_certificates, chain)) if chain else []
        if config.supplemental_bundle_path is not None:
            path = config.supplemental_bundle_path
            text = read_named_file("supplemental_bundle_path", path)
            above += _parse(f"config.supplemental_bundle_path {path}", checks.parse_certificates, text)
        return [own, *above]

    def _read_roots(self, client: Any) -> tuple[x509.Certificate, ...]:
        return self._roots(*self._authority(client))

    def _roots(self, *known: x509.Certificate) -> tuple[x509.Certificate, ...]:
        roots = checks.unexpired(checks.self_signed(known), self._clock())
        if not roots:
            raise UpstreamError("the CA's chain has no root; put the root into a file for supplemental_bundle_path")
        return roots


def _parse(what: str, parse: Callable[[str], T], pem: str) -> T:
    try:
        return parse(pem)
    except ValueError as error:
        raise UpstreamError(f"{what} {error}") from None
