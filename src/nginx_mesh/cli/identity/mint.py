"""`nginx-meshctl identity mint`: SVIDs for somebody whom no agent knows."""

from __future__ import annotations

from pathlib import Path

import click

from nginx_mesh.cli.control_plane import IdentityAuthority
from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.params import parse_duration
from nginx_mesh.cli.table import instant

from .files import write_file
from .options import on_authority


@click.group()
def mint() -> None:
    """Issue an SVID to somebody whom no agent knows, such as a job outside of the mesh."""


_ttl_option = click.option(
    "--ttl",
    type=parse_duration,
    metavar="DURATION",
    help="How long it is valid; by default as long as those of workloads.",
)


@mint.command()
@on_authority
@click.argument("spiffe_id", metavar="SPIFFE-ID")
@click.option("--dns", "dns_names", multiple=True, metavar="NAME", help="A DNS name to put in. May be repeated.")
@_ttl_option
@click.option(
    "--write",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The directory for svid.pem, key.pem and bundle.pem.",
)
@click.option("--force", is_flag=True, help="Overwrite these files.")
def x509(
    authority: IdentityAuthority,
    spiffe_id: str,
    dns_names: tuple[str, ...],
    ttl: int | None,
    directory: Path,
    force: bool,
) -> None:
    """Issue an X.509-SVID. Its key is made on this machine and written to key.pem, which only its owner may read.

    \b
    Example:
      nginx-meshctl identity mint x509 spiffe://example.org/ns/ops/sa/backup --ttl 1h --write backup/
    """
    import base64

    from cryptography.hazmat.primitives.serialization import Encoding

    from nginx_mesh.identity.common.keys import generate_key, to_pem
    from nginx_mesh.identity.common.x509svid import request_svid

    files = [directory / name for name in ("svid.pem", "key.pem", "bundle.pem")]
    present = [str(path) for path in files if path.exists()]
    if present and not force:
        raise Failure(f"{', '.join(present)}: already there; use --force to overwrite")
    key = generate_key("ec-p256")
    csr = request_svid(key, None).public_bytes(Encoding.DER)
    answer = authority.mint_x509_svid(spiffe_id, base64.b64encode(csr).decode(), dns_names, ttl or 0)
    contents = (answer["chain"], to_pem(key), answer["bundle"])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in zip(files, contents, strict=True):
            write_file(path, text, 0o600 if path.name == "key.pem" else 0o644)
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}") from None
    click.echo(f"{', '.join(path.name for path in files)} written to {directory}")
    click.echo(f"{spiffe_id} until {instant(answer['not_after'])}")


@mint.command()
@on_authority
@click.argument("spiffe_id", metavar="SPIFFE-ID")
@click.option(
    "--audience", multiple=True, required=True, metavar="NAME", help="Who is to accept the token. May be repeated."
)
@_ttl_option
def jwt(authority: IdentityAuthority, spiffe_id: str, audience: tuple[str, ...], ttl: int | None) -> None:
    """Issue a JWT-SVID and print it.

    \b
    Example:
      nginx-meshctl identity mint jwt spiffe://example.org/ns/ops/sa/backup --audience vault --ttl 5m
    """
    click.echo(authority.mint_jwt_svid(spiffe_id, audience, ttl or 0))
