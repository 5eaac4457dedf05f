"""`nginx-meshctl identity token` and `agent`: admitting agents, and refusing them."""

from __future__ import annotations

import time
from pathlib import Path

import click

from nginx_mesh.cli.control_plane import IdentityAuthority
from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.params import parse_duration
from nginx_mesh.cli.table import render, whole

from . import view
from .files import write_file
from .options import on_authority


@click.group()
def token() -> None:
    """Manage join tokens, which are secrets that admit one agent, once."""


@token.command("create")
@on_authority
@click.argument("name", metavar="AGENT")
@click.option(
    "--ttl", type=parse_duration, default="10m", show_default=True, metavar="DURATION", help="How long it can be used."
)
@click.option("--registrar", is_flag=True, help="The agent may register the workloads of its machine itself.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it to a file (0600)."
)
def create_token(authority: IdentityAuthority, name: str, ttl: int, registrar: bool, output: Path | None) -> None:
    """Make a join token for an agent.

    \b
    Example:
      nginx-meshctl identity token create vm-1 --registrar -o vm-1.token
    """
    answer = authority.create_join_token(name, ttl, registrar=registrar)
    if output is None:
        click.echo(answer["token"])
        return
    try:
        write_file(output, answer["token"] + "\n", 0o600)
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror}") from None
    click.echo(f"join token for {answer['agent']} written to {output}; it is good once, for {ttl}s")


@click.group()
def agent() -> None:
    """Manage the agents that proved where they run."""


@agent.command("list")
@on_authority
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Everything.")
def list_agents(authority: IdentityAuthority, output: str | None) -> None:
    """Show the attested agents."""
    found = authority.agents()
    if output is not None:
        click.echo(whole(found, output), nl=False)
    elif not found:
        click.echo("No agents found.", err=True)
    else:
        click.echo(render(view.agents(found, time.time())))


@agent.command()
@on_authority
@click.argument("name", metavar="AGENT")
def ban(authority: IdentityAuthority, name: str) -> None:
    """Refuse an agent from now on. The SVIDs that its workloads hold are valid until they expire."""
    authority.ban_agent(name, banned=True)
    click.echo(f'agent "{name}" banned')


@agent.command()
@on_authority
@click.argument("name", metavar="AGENT")
def unban(authority: IdentityAuthority, name: str) -> None:
    """Accept a banned agent again."""
    authority.ban_agent(name, banned=False)
    click.echo(f'agent "{name}" readmitted')


@agent.command()
@on_authority
@click.argument("name", metavar="AGENT")
def evict(authority: IdentityAuthority, name: str) -> None:
    """Forget an agent. To come back it needs another join token."""
    authority.evict_agent(name)
    click.echo(f'agent "{name}" evicted')
