"""The answers of the Workload API, made from what a workload holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.bundle import TrustBundle, jwks_of
from nginx_mesh.identity.common.workload import JwtSvid, WorkloadContext

from . import workload_pb2 as pb

# Other claims of a foreign token are left out: another trust domain may use the same names with another meaning.
_FOREIGN_CLAIMS = frozenset(["sub", "aud", "exp"])


def x509_svids(context: WorkloadContext) -> pb.X509SVIDResponse:
    """The answer to FetchX509SVID. Raises KeyError when the bundle of an SVID's own trust domain is missing."""
    own = {svid.spiffe_id.trust_domain for svid in context.svids}
    return pb.X509SVIDResponse(
        svids=[
            pb.X509SVID(
                spiffe_id=str(svid.spiffe_id),
                x509_svid=_der(svid.chain),
                x509_svid_key=svid.key.private_bytes(
                    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ),
                bundle=_der(context.bundles[svid.spiffe_id.trust_domain].x509_authorities),
            )
            for svid in context.svids
        ],
        federated_bundles=_x509_bundles(b for name, b in context.bundles.items() if name not in own),
    )


def x509_bundles(context: WorkloadContext) -> pb.X509BundlesResponse:
    """The answer to FetchX509Bundles."""
    return pb.X509BundlesResponse(bundles=_x509_bundles(context.bundles.values()))


def jwt_bundles(context: WorkloadContext) -> pb.JWTBundlesResponse:
    """The answer to FetchJWTBundles."""
    bundles = context.bundles.values()
    return pb.JWTBundlesResponse(bundles={_name(bundle): jwks_of(bundle) for bundle in bundles})


def jwt_svids(svids: Sequence[JwtSvid]) -> pb.JWTSVIDResponse:
    """The answer to FetchJWTSVID."""
    return pb.JWTSVIDResponse(svids=[pb.JWTSVID(spiffe_id=str(svid.spiffe_id), svid=svid.token) for svid in svids])


def validated(claims: Mapping[str, Any], own: Iterable[str]) -> pb.ValidateJWTSVIDResponse:
    """The answer to ValidateJWTSVID for valid claims. `own` are the workload's trust domains. Raises ValueError."""
    foreign = SpiffeId.parse(claims["sub"]).trust_domain not in own
    told = {name: value for name, value in claims.items() if not foreign or name in _FOREIGN_CLAIMS}
    if isinstance(told["aud"], str):
        # A string and a list of one mean the same, and callers expect the list.
        told["aud"] = [told["aud"]]
    try:
        return pb.ValidateJWTSVIDResponse(spiffe_id=claims["sub"], claims=json_format.ParseDict(told, Struct()))
    except json_format.ParseError:
        raise ValueError("claims are nested too deeply") from None


def _name(bundle: TrustBundle) -> str:
    return str(SpiffeId(bundle.trust_domain))


def _x509_bundles(bundles: Iterable[TrustBundle]) -> dict[str, bytes]:
    return {_name(bundle): _der(bundle.x509_authorities) for bundle in bundles}


def _der(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.DER) for certificate in certificates)
