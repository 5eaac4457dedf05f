"""`nginx-meshctl identity`: who has which identity, and what the authority behind it is to do."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from nginx_mesh.local.paths import MeshPaths

from . import identityview, meshes
from .client import Client, UnreachableError
from .failure import Failure
from .group import MeshGroup, require_root
from .options import duration, mesh_name
from .table import instant, render, whole

F = TypeVar("F", bound=Callable[..., Any])

_ROOT = "/identity"


def _on_authority(command: F) -> F:
    """Gives a command --mesh and --socket, and as its first argument a client of the authority's API."""

    @functools.wraps(command)
    @click.pass_context
    def with_client(ctx: click.Context, /, paths: MeshPaths, socket: Path | None, **arguments: Any) -> Any:
        if socket is None:
            require_root()
            return command(meshes.connect(paths), **arguments)
        if ctx.get_parameter_source("paths") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--mesh and --socket cannot be used together", ctx)
        try:
            return command(Client(socket), **arguments)
        except UnreachableError as error:
            raise Failure(_unreachable(socket, error)) from None

    for option in (
        click.option(
            "--socket",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="The admin socket of an nginx-mesh-identity process, instead of a local mesh.",
        ),
        click.option(
            "--mesh",
            "paths",
            type=mesh_name,
            default="local",
            show_default=True,
            metavar="NAME",
            help="Which local mesh.",
        ),
    ):
        with_client = option(with_client)
    return with_client  # type: ignore[return-value]


def _unreachable(socket: Path, error: UnreachableError) -> str:
    if isinstance(error.__cause__, PermissionError):
        return f"{socket} is for root only: run this with sudo"
    return (
        f"no identity server answers at {socket} ({getattr(error.__cause__, 'strerror', None) or error}): "
        "start it with `nginx-mesh-identity --config FILE`, whose identity.adminSocket is this path"
    )


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


@identity.command()
@_on_authority
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml"]), help="More columns, or everything.")
def show(client: Client, output: str | None) -> None:
    """Show the authority, its CAs, and who has which SVID.

    \b
    Examples:
      nginx-meshctl identity show
      nginx-meshctl identity show -o wide --mesh second
    """
    found = identityview.fetch(client)
    if output in ("json", "yaml"):
        click.echo(whole(found, output), nl=False)
    else:
        click.echo(identityview.text(found, time.time(), wide=output == "wide"))


@identity.command()
@_on_authority
@click.option("--trust-domain", metavar="DOMAIN", help="Whose bundle; by default that of the authority itself.")
@click.option(
    "--format", "form", type=click.Choice(["pem", "spiffe"]), default="pem", show_default=True, help="The format."
)
def bundle(client: Client, trust_domain: str | None, form: str) -> None:
    """Print a trust bundle: what SVIDs are verified by.

    `pem` has the roots of X.509-SVIDs; `spiffe` is the document of the SPIFFE standard, keys of JWT-SVIDs included.

    \b
    Examples:
      nginx-meshctl identity bundle > bundle.pem
      nginx-meshctl identity bundle --format spiffe > bundle.json
      nginx-meshctl identity bundle --trust-domain other.example
    """
    known = client.get(f"{_ROOT}/bundles")
    for each in known:
        if each["own"] if trust_domain is None else each["trust_domain"] == trust_domain:
            text = each["pem" if form == "pem" else "document"]
            click.echo(text.rstrip("\n"))
            return
    names = ", ".join(each["trust_domain"] for each in known)
    raise Failure(f'there is no bundle of trust domain "{trust_domain}"; there are those of {names}')


@identity.group()
def mint() -> None:
    """Issue an SVID to somebody whom no agent knows, such as a job outside of the mesh."""


_ttl_option = click.option(
    "--ttl", type=duration, metavar="DURATION", help="How long it is good; by default as long as those of workloads."
)


@mint.command()
@_on_authority
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
    client: Client, spiffe_id: str, dns_names: tuple[str, ...], ttl: int | None, directory: Path, force: bool
) -> None:
    """Issue an X.509-SVID. Its key is made here and only written to key.pem, for the owner of the directory alone.

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
    wanted = {"spiffe_id": spiffe_id, "csr": base64.b64encode(csr).decode(), "dns_names": dns_names, "ttl": ttl or 0}
    answer = client.request("POST", f"{_ROOT}/mint", wanted)
    contents = (answer["chain"], to_pem(key), answer["bundle"])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in zip(files, contents, strict=True):
            _write(path, text, 0o600 if path.name == "key.pem" else 0o644)
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}") from None
    click.echo(f"{', '.join(path.name for path in files)} written to {directory}")
    click.echo(f"{spiffe_id} until {instant(answer['not_after'])}")


@mint.command()
@_on_authority
@click.argument("spiffe_id", metavar="SPIFFE-ID")
@click.option(
    "--audience", multiple=True, required=True, metavar="NAME", help="Who shall accept the token. May be repeated."
)
@_ttl_option
def jwt(client: Client, spiffe_id: str, audience: tuple[str, ...], ttl: int | None) -> None:
    """Issue a JWT-SVID, printed.

    \b
    Example:
      nginx-meshctl identity mint jwt spiffe://example.org/ns/ops/sa/backup --audience vault --ttl 5m
    """
    wanted = {"spiffe_id": spiffe_id, "audience": audience, "ttl": ttl or 0}
    click.echo(client.request("POST", f"{_ROOT}/mint-jwt", wanted)["token"])


@identity.command("rotate-ca")
@_on_authority
@click.option(
    "--overlap",
    type=duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long the new CA is known to everybody before it signs.",
)
@click.option("--wait", is_flag=True, help="Wait until it signs, and until the SVIDs of a local mesh are replaced.")
def rotate_ca(client: Client, overlap: int, wait: bool) -> None:
    """Have a new CA sign soon, and every SVID replaced then. No request fails by it.

    \b
    Examples:
      nginx-meshctl identity rotate-ca
      nginx-meshctl identity rotate-ca --overlap 5s --wait
    """
    prepared = client.request("POST", f"{_ROOT}/rotate", {"overlap": overlap})
    click.echo(f"CA {prepared['id'][:8]} is prepared; it signs in {max(0, prepared['activate_at'] - time.time()):.0f}s")
    if wait:
        for line in identityview.wait_rotated(client, prepared["id"], prepared["activate_at"]):
            click.echo(line)


@identity.group()
def token() -> None:
    """Join tokens: secrets that admit one agent, once."""


@token.command("create")
@_on_authority
@click.argument("name", metavar="AGENT")
@click.option(
    "--ttl", type=duration, default="10m", show_default=True, metavar="DURATION", help="How long it can be used."
)
@click.option("--registrar", is_flag=True, help="The agent may register the workloads of its machine itself.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it to a file (0600)."
)
def create_token(client: Client, name: str, ttl: int, registrar: bool, output: Path | None) -> None:
    """Make a join token for an agent.

    \b
    Example:
      nginx-meshctl identity token create vm-1 --registrar -o vm-1.token
    """
    answer = client.request("POST", f"{_ROOT}/tokens", {"name": name, "ttl": ttl, "registrar": registrar})
    if output is None:
        click.echo(answer["token"])
        return
    try:
        _write(output, answer["token"] + "\n", 0o600)
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror}") from None
    click.echo(f"join token for {answer['agent']} written to {output}; it is good once, for {ttl}s")


@identity.group()
def agent() -> None:
    """Agents that proved where they run."""


@agent.command("list")
@_on_authority
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Everything.")
def list_agents(client: Client, output: str | None) -> None:
    """Show the attested agents."""
    found = client.get(f"{_ROOT}/agents")
    if output is not None:
        click.echo(whole(found, output), nl=False)
    elif not found:
        click.echo("No agents found.", err=True)
    else:
        click.echo(render(identityview.agents(found, time.time())))


@agent.command()
@_on_authority
@click.argument("name", metavar="AGENT")
def ban(client: Client, name: str) -> None:
    """Refuse an agent from now on. What its workloads hold is good until it expires."""
    client.request("PATCH", f"{_ROOT}/agents/{quote(name, safe='')}", {"banned": True})
    click.echo(f'agent "{name}" banned')


@agent.command()
@_on_authority
@click.argument("name", metavar="AGENT")
def unban(client: Client, name: str) -> None:
    """Accept a banned agent again."""
    client.request("PATCH", f"{_ROOT}/agents/{quote(name, safe='')}", {"banned": False})
    click.echo(f'agent "{name}" readmitted')


@agent.command()
@_on_authority
@click.argument("name", metavar="AGENT")
def evict(client: Client, name: str) -> None:
    """Forget an agent. To come back it needs another join token."""
    client.request("DELETE", f"{_ROOT}/agents/{quote(name, safe='')}")
    click.echo(f'agent "{name}" evicted')


@identity.group()
def federation() -> None:
    """Other trust domains whose workloads are to be recognised here."""


@federation.command("create")
@_on_authority
@click.argument("trust_domain", metavar="TRUST-DOMAIN")
@click.option("--endpoint", required=True, metavar="URL", help="Where it publishes its bundle (https).")
@click.option(
    "--profile",
    type=click.Choice(["https_spiffe", "https_web"]),
    required=True,
    help="How the endpoint proves who it is: by an SVID, or by a certificate of the web.",
)
@click.option("--endpoint-spiffe-id", default="", metavar="ID", help="Whose SVID it shows, with https_spiffe.")
@click.option(
    "--bundle",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Its first bundle, SPIFFE or PEM; needed with https_spiffe.",
)
def federate(
    client: Client, trust_domain: str, endpoint: str, profile: str, endpoint_spiffe_id: str, file: Path | None
) -> None:
    """Recognise another trust domain, or change how its bundle is fetched.

    The other side has to do the same with this trust domain.

    \b
    Example:
      nginx-meshctl identity federation create other.example --endpoint https://spiffe.other.example:8443/ \\
        --profile https_spiffe --endpoint-spiffe-id spiffe://other.example/nginx-mesh/identity --bundle other.json
    """
    wanted = {
        "endpoint_url": endpoint,
        "profile": profile,
        "endpoint_spiffe_id": endpoint_spiffe_id,
        "bundle": "" if file is None else _bundle_document(trust_domain, file),
    }
    client.request("PUT", f"{_ROOT}/federation/{quote(trust_domain, safe='')}", wanted)
    click.echo(f'federation with "{trust_domain}" configured')


@federation.command("list")
@_on_authority
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Everything.")
def list_federations(client: Client, output: str | None) -> None:
    """Show the trust domains that are recognised, and how many roots are known of each."""
    found = client.get(f"{_ROOT}/federation")
    if output is not None:
        click.echo(whole(found, output), nl=False)
    elif not found:
        click.echo("No federation found.", err=True)
    else:
        click.echo(render(identityview.federations(found)))


@federation.command("delete")
@_on_authority
@click.argument("trust_domain", metavar="TRUST-DOMAIN")
def separate(client: Client, trust_domain: str) -> None:
    """Recognise a trust domain no longer."""
    client.request("DELETE", f"{_ROOT}/federation/{quote(trust_domain, safe='')}")
    click.echo(f'federation with "{trust_domain}" deleted')


def _bundle_document(trust_domain: str, path: Path) -> str:
    """The SPIFFE document in a file, made of PEM if that is what the file holds."""
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


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file whose mode is right before there is anything in it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
