"""Checks of the answers of upstream authorities, before anything is signed below them.

A CA that our sidecars, OpenSSL or Go would not follow up to a root is refused here with the reason, instead of failing
every handshake later. Pure: the time is an argument, in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from nginx_mesh.api.errors import one_line
from nginx_mesh.identity.common.x509svid import SvidError, spiffe_id_of

from .base import MintedCa, UpstreamError

MAX_PEM_CERTIFICATES = 64
_MAX_DEPTH = 8
"""The limit to the CAs from ours to the root, both included."""

_MAX_STEPS = 1000
"""The limit to the signatures that are checked in search of a chain, as certificates may sign each other in circles."""

_MIN_RSA_BITS = 2048
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)
_SVID_USAGE = frozenset((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))


def accept(
    csr: x509.CertificateSigningRequest,
    certificate: x509.Certificate,
    others: Iterable[x509.Certificate],
    roots: Iterable[x509.Certificate],
    now: float,
) -> MintedCa:
    """The CA that an answer to `csr` makes. Raises UpstreamError, which says what is wrong with the answer.

    `others` has the intermediates, in any order and perhaps with unrelated certificates. `roots` are to be trusted
    because of this CA.
    """
    if certificate.public_key() != csr.public_key():
        raise UpstreamError("the certificate is for another key than the one that was asked for")
    try:
        wanted, given = spiffe_id_of(csr), spiffe_id_of(certificate)
    except SvidError as error:
        raise UpstreamError(f"the certificate's SPIFFE ID: {error}") from None
    if given != wanted:
        raise UpstreamError(f"the certificate is for {given}, not for {wanted}")
    if is_self_signed(certificate):
        raise UpstreamError("the certificate is signed by the CA's own key, not by upstream")
    roots = unexpired(roots, now)
    path = find_path(certificate, others, roots, now, trust_domain=wanted.trust_domain)
    return MintedCa(path[:-1], roots)


def find_path(
    certificate: x509.Certificate,
    others: Iterable[x509.Certificate],
    roots: Iterable[x509.Certificate],
    now: float,
    *,
    trust_domain: str | None = None,
    below: int = 0,
) -> tuple[x509.Certificate, ...]:
    """The path from a CA's certificate up to one of the roots, both included, with every certificate fit for its place.

    `below` is the number of CAs that will be below the certificate. Raises UpstreamError, which says what is wrong.
    """
    roots = tuple(roots)
    if not roots:
        raise UpstreamError("there is no root certificate that is self-signed and has not expired")
    problem: UpstreamError | None = None
    for path in _paths(certificate, tuple(dict.fromkeys(others)), roots, (), iter(range(_MAX_STEPS))):
        try:
            for depth, one in enumerate(path):
                _check(one, depth + below, trust_domain, now)
        except UpstreamError as error:
            problem = problem or error
        else:
            return path
    raise problem or _no_path(certificate, others, roots)


def parse_certificates(pem: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM text, at least one. Raises ValueError."""
    try:
        found = tuple(x509.load_pem_x509_certificates(pem.encode()))
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise ValueError("is not certificates in PEM") from None
    if len(found) > MAX_PEM_CERTIFICATES:
        raise ValueError(f"has {len(found)} certificates; the limit is {MAX_PEM_CERTIFICATES}")
    return found


def parse_certificate(pem: str) -> x509.Certificate:
    """The one certificate in a PEM text. Raises ValueError."""
    found = parse_certificates(pem)
    if len(found) != 1:
        raise ValueError(f"is {len(found)} certificates, not one")
    return found[0]


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether its own key signed it. Only such a certificate is taken for a root."""
    return _signed(certificate, by=certificate)


def self_signed(certificates: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The roots among certificates, each once."""
    return tuple(c for c in dict.fromkeys(certificates) if is_self_signed(c))


def unexpired(certificates: Iterable[x509.Certificate], now: float) -> tuple[x509.Certificate, ...]:
    """The certificates that have not expired."""
    return tuple(c for c in certificates if now <= c.not_valid_after_utc.timestamp())


def called(certificate: x509.Certificate) -> str:
    """A certificate's subject, for messages."""
    return f'"{one_line(certificate.subject.rfc4514_string()) or f"serial {certificate.serial_number:x}"}"'


def _paths(
    certificate: x509.Certificate,
    others: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    below: tuple[x509.Certificate, ...],
    steps: Iterator[int],
) -> Iterator[tuple[x509.Certificate, ...]]:
    if certificate in roots:
        yield (*below, certificate)
        return
    below = (*below, certificate)
    for root in roots:
        if _signed(certificate, by=root):
            yield (*below, root)
    if len(below) + 1 < _MAX_DEPTH:
        for other in others:
            if other in below or other in roots or other.subject != certificate.issuer:
                continue
            if next(steps, None) is None:
                raise UpstreamError("too many certificates sign each other")
            if _signed(certificate, by=other):
                yield from _paths(other, others, roots, below, steps)


def _no_path(
    certificate: x509.Certificate, others: Iterable[x509.Certificate], roots: Sequence[x509.Certificate]
) -> UpstreamError:
    known = (*others, *roots)
    seen = [certificate]
    while issuer := next((c for c in known if c not in seen and _signed(seen[-1], by=c)), None):
        seen.append(issuer)
    last = seen[-1]
    if is_self_signed(last):
        return UpstreamError(f"the chain of {called(certificate)} ends at {called(last)}, which is none of the roots")
    if any(_signed(last, by=c) for c in known):
        return UpstreamError(f"{called(last)}: the certificates of its chain lead to none of the roots")
    named = any(c.subject == last.issuer for c in known)
    missing = "did not sign it" if named else "is missing from the chain and the roots"
    return UpstreamError(f'{called(last)}: its issuer "{one_line(last.issuer.rfc4514_string())}" {missing}')


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    if certificate.issuer != by.subject:
        return False
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check(certificate: x509.Certificate, depth: int, trust_domain: str | None, now: float) -> None:
    """Raise UpstreamError unless `certificate` is fit to be a CA with `depth` CAs below it."""
    name = called(certificate)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start.timestamp():
        raise UpstreamError(f"{name} is not valid before {_said(start)}; here it is {_said(now)}")
    if now > end.timestamp():
        raise UpstreamError(f"{name} expired at {_said(end)}")
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension) as error:
        raise UpstreamError(f"{name} has malformed extensions: {one_line(str(error))}") from None
    for extension in extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            raise UpstreamError(f"{name} has the unknown critical extension {extension.oid.dotted_string}")
        match extension.value:
            case x509.KeyUsage(key_cert_sign=False):
                raise UpstreamError(f"{name} may not sign certificates (its key usage lacks keyCertSign)")
            case x509.ExtendedKeyUsage() as usage:
                if _SVID_USAGE.difference(usage) and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
                    raise UpstreamError(f"{name} may not sign for TLS servers and clients (its extended key usage)")
            case x509.NameConstraints() as constraints if trust_domain is not None:
                _check_constraints(name, constraints, trust_domain)
    _check_authority(certificate, name, extensions, depth)
    key, digest = certificate.public_key(), certificate.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise UpstreamError(f"{name} has an RSA key of {key.key_size} bits; the least is {_MIN_RSA_BITS}")
    if isinstance(digest, _WEAK_HASHES) and not is_self_signed(certificate):
        raise UpstreamError(f"{name} is signed with {digest.name}, which verifiers refuse")


def _check_authority(certificate: x509.Certificate, name: str, extensions: x509.Extensions, depth: int) -> None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise UpstreamError(f"{name} is no CA (it has no basic constraints)") from None
    if not constraints.ca:
        raise UpstreamError(f"{name} is no CA (its basic constraints say so)")
    length = constraints.path_length
    if length is not None and length < depth:
        raise UpstreamError(f"{name} has path length {length}; the CAs below it need at least {depth}")
    if depth == 0 and not any(isinstance(e.value, x509.KeyUsage) for e in extensions):
        raise UpstreamError(f"{name} has no key usage; the SPIFFE standard wants keyCertSign")


def _check_constraints(name: str, constraints: x509.NameConstraints, trust_domain: str) -> None:
    permitted = _uris(constraints.permitted_subtrees)
    if permitted and not any(_covers(c, trust_domain) for c in permitted):
        raise UpstreamError(f"{name} permits only the trust domains {one_line(', '.join(permitted))}")
    if any(_covers(c, trust_domain) for c in _uris(constraints.excluded_subtrees)):
        raise UpstreamError(f"{name} excludes the trust domain {trust_domain}")


def _uris(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [name.value for name in subtrees or () if isinstance(name, x509.UniformResourceIdentifier)]


def _covers(constraint: str, host: str) -> bool:
    """Whether a constraint covers a host. One with a leading dot covers all hosts below it (RFC 5280, 4.2.1.10)."""
    return host.endswith(constraint) if constraint.startswith(".") else host == constraint


def _said(instant: datetime | float) -> str:
    moment = instant if isinstance(instant, datetime) else datetime.fromtimestamp(int(instant), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
