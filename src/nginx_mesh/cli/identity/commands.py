"""`nginx-meshctl identity`: who has which identity, and the authority that issues it."""

from __future__ import annotations

import time

import click

from nginx_mesh.cli.control_plane import IdentityAuthority
from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.group import MeshGroup
from nginx_mesh.cli.params import parse_duration
from nginx_mesh.cli.table import whole

from . import view
from .agents import agent, token
from .federation import federation
from .mint import mint
from .options import IdentitySource, on_authority, on_identity_source


@click.group(cls=MeshGroup)
def identity() -> None:
    """Show and manage who has which SPIFFE identity.

    The authority is that of a local mesh (--mesh), or an identity server that is a process of its own (--socket).

    \b
    Examples:
      nginx-meshctl identity show
      nginx-meshctl identity bundle > bundle.pem
      nginx-meshctl identity rotate-ca --wait
      nginx-meshctl identity show --socket /run/nginx-mesh-identity/admin.sock
    """


for command in (agent, federation, mint, token):
    identity.add_command(command)


@identity.command()
@on_identity_source
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml"]), help="More columns, or everything.")
def show(source: IdentitySource, output: str | None) -> None:
    """Show the authority, its CAs, and who has which SVID.

    \b
    Examples:
      nginx-meshctl identity show
      nginx-meshctl identity show -o wide --mesh second
    """
    found = view.fetch(source)
    if output in ("json", "yaml"):
        click.echo(whole(found, output), nl=False)
    else:
        click.echo(view.text(found, time.time(), wide=output == "wide"))


@identity.command()
@on_authority
@click.option("--trust-domain", metavar="DOMAIN", help="Whose bundle; by default that of the authority itself.")
@click.option(
    "--format", "form", type=click.Choice(["pem", "spiffe"]), default="pem", show_default=True, help="The format."
)
def bundle(authority: IdentityAuthority, trust_domain: str | None, form: str) -> None:
    """Print a trust bundle, by which SVIDs are verified.

    `pem` has the roots of X.509-SVIDs; `spiffe` is the document of the SPIFFE standard, keys of JWT-SVIDs included.

    \b
    Examples:
      nginx-meshctl identity bundle > bundle.pem
      nginx-meshctl identity bundle --format spiffe > bundle.json
      nginx-meshctl identity bundle --trust-domain other.example
    """
    known = authority.bundles()
    for each in known:
        if each["own"] if trust_domain is None else each["trust_domain"] == trust_domain:
            text = each["pem" if form == "pem" else "document"]
            click.echo(text.rstrip("\n"))
            return
    names = ", ".join(each["trust_domain"] for each in known)
    raise Failure(f'there is no bundle of trust domain "{trust_domain}"; there are those of {names}')


@identity.command("rotate-ca")
@on_identity_source
@click.option(
    "--overlap",
    type=parse_duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long the new CA is known to everybody before it signs.",
)
@click.option(
    "--wait", is_flag=True, help="Wait until the new CA signs, and until the SVIDs of a local mesh are replaced."
)
def rotate_ca(source: IdentitySource, overlap: int, wait: bool) -> None:
    """Have a new CA sign soon, and every SVID replaced then. No request fails because of it.

    \b
    Examples:
      nginx-meshctl identity rotate-ca
      nginx-meshctl identity rotate-ca --overlap 5s --wait
    """
    prepared = source.authority.rotate_ca(overlap)
    click.echo(f"CA {prepared['id'][:8]} is prepared; it signs in {max(0, prepared['activate_at'] - time.time()):.0f}s")
    if wait:
        for line in view.wait_rotated(source, prepared["id"], prepared["activate_at"]):
            click.echo(line)
