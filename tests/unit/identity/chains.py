"""Verifiers that we did not write, for chains that we issue."""

import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

PURPOSES = ("sslserver", "sslclient")


def openssl_verify(directory: Path, chain_pem: str, bundle_pem: str, purpose: str, at: float) -> str:
    """ "" if the system's openssl takes the chain for `purpose` at Unix second `at`, else what it says."""
    leaf, bundle = directory / "chain.pem", directory / "bundle.pem"
    leaf.write_text(chain_pem)
    bundle.write_text(bundle_pem)
    command = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-no-CApath", "-no-CAstore"]
    command += ["-purpose", purpose, "-attime", str(int(at)), "-CAfile", str(bundle), "-untrusted", str(leaf)]
    done = subprocess.run([*command, str(leaf)], capture_output=True, text=True, check=False, timeout=30)
    return "" if done.returncode == 0 else done.stdout + done.stderr


class Verifier:
    """cryptography's path validation, as a TLS server applies it to a client, for one trust bundle."""

    def __init__(self, bundle: Iterable[x509.Certificate]) -> None:
        self._policy = PolicyBuilder().store(Store(list(bundle)))

    def spiffe_id(self, leaf: x509.Certificate, at: float, intermediates: Sequence[x509.Certificate] = ()) -> str:
        """The URI name of the verified leaf. Raises VerificationError."""
        verifier = self._policy.time(datetime.fromtimestamp(at, UTC)).build_client_verifier()
        subjects = verifier.verify(leaf, list(intermediates)).subjects
        assert subjects is not None
        (uri,) = [s.value for s in subjects if isinstance(s, x509.UniformResourceIdentifier)]
        return uri
