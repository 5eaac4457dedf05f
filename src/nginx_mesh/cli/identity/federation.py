"""`nginx-meshctl identity federation`: other trust domains whose workloads are recognised."""

from __future__ import annotations

from pathlib import Path

import click

from nginx_mesh.cli.control_plane import IdentityAuthority
from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.table import render, whole

from . import view
from .options import on_authority


@click.group()
def federation() -> None:
    """Manage the other trust domains whose workloads are recognised here."""


@federation.command("create")
@on_authority
@click.argument("trust_domain", metavar="TRUST-DOMAIN")
@click.option("--endpoint", required=True, metavar="URL", help="Where the trust domain publishes its bundle (https).")
@click.option(
    "--profile",
    type=click.Choice(["https_spiffe", "https_web"]),
    required=True,
    help="How the endpoint proves who it is: by an SVID, or by a certificate of the web.",
)
@click.option(
    "--endpoint-spiffe-id",
    default="",
    metavar="ID",
    help="The SPIFFE ID of the SVID that the endpoint shows, with https_spiffe.",
)
@click.option(
    "--bundle",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The first bundle of the trust domain, SPIFFE or PEM; needed with https_spiffe.",
)
def federate(
    authority: IdentityAuthority,
    trust_domain: str,
    endpoint: str,
    profile: str,
    endpoint_spiffe_id: str,
    file: Path | None,
) -> None:
    """Recognise another trust domain, or change how its bundle is fetched.

    The other side has to do the same with this trust domain.

    \b
    Example:
      nginx-meshctl identity federation create other.example --endpoint https://spiffe.other.example:8443/ \\
        --profile https_spiffe --endpoint-spiffe-id spiffe://other.example/nginx-mesh/identity --bundle other.json
    """
    relationship = {
        "endpoint_url": endpoint,
        "profile": profile,
        "endpoint_spiffe_id": endpoint_spiffe_id,
        "bundle": "" if file is None else _bundle_document(trust_domain, file),
    }
    authority.federate(trust_domain, relationship)
    click.echo(f'federation with "{trust_domain}" configured')


@federation.command("list")
@on_authority
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Everything.")
def list_federations(authority: IdentityAuthority, output: str | None) -> None:
    """Show the trust domains that are recognised, and how many roots are known of each."""
    found = authority.federations()
    if output is not None:
        click.echo(whole(found, output), nl=False)
    elif not found:
        click.echo("No federation found.", err=True)
    else:
        click.echo(render(view.federations(found)))


@federation.command("delete")
@on_authority
@click.argument("trust_domain", metavar="TRUST-DOMAIN")
def separate(authority: IdentityAuthority, trust_domain: str) -> None:
    """Stop recognising a trust domain."""
    authority.end_federation(trust_domain)
    click.echo(f'federation with "{trust_domain}" deleted')


def _bundle_document(trust_domain: str, path: Path) -> str:
    """Return the SPIFFE document in a file, made from PEM if that is what the file holds. Raises Failure."""
    from nginx_mesh.identity.server.upstream.checks import parse_certificates
    from nginx_mesh.identity.server.upstream.config import read_file

    try:
        text = read_file(str(path))
        if "-----BEGIN" not in text:
            return text
        from nginx_mesh.identity.common.bundle import TrustBundle, encode

        return encode(TrustBundle(trust_domain, tuple(parse_certificates(text)))).decode()
    except ValueError as error:
        raise Failure(f"--bundle: {path}: {error}") from None
