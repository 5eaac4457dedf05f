"""Certificate signing requests (PKCS #10, RFC 2986) that agents send."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.client import RefusedError
from nginx_mesh.identity.common.keys import PublicKey, key_type_of

_MAX_CSR = 8192


def public_key_of(csr: bytes, spiffe_id: SpiffeId, dns_names: Sequence[str]) -> PublicKey:
    """The key of a CSR (DER), which its sender proves to hold. Raises RefusedError.

    A CSR may ask for these names or for none; one that asks for others is refused.
    """
    if len(csr) > _MAX_CSR:
        raise RefusedError(f"csr: {len(csr)} bytes; the limit is {_MAX_CSR}")
    try:
        request = x509.load_der_x509_csr(csr)
        valid = request.is_signature_valid
        public_key = request.public_key()
        key_type_of(public_key)
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    except Exception as error:  # the parser raises errors of many types
        raise RefusedError(f"csr: {error or type(error).__name__}") from None
    if not valid:
        raise RefusedError("csr: its signature is not of its key")
    allowed = {x509.UniformResourceIdentifier(str(spiffe_id)), *(x509.DNSName(name) for name in dns_names)}
    for name in names:
        if name not in allowed:
            raise RefusedError(f"csr: it asks for the name {str(name.value)[:200]!r}, which is not registered")
    assert isinstance(public_key, PublicKey)  # noqa: S101 - what key_type_of established
    return public_key
