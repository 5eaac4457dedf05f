"""`nginx-meshctl completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Generate the completion script of a shell.

    \b
    Examples:
      source <(nginx-meshctl completion bash)
      nginx-meshctl completion zsh > "${fpath[1]}/_nginx-meshctl"
      nginx-meshctl completion fish > ~/.config/fish/completions/nginx-meshctl.fish
    """
    shell_class = get_completion_class(shell)
    root = ctx.find_root()
    if shell_class is None:  # no shell of the choice above
        raise AssertionError(shell)
    click.echo(shell_class(root.command, {}, "nginx-meshctl", "_NGINX_MESHCTL_COMPLETE").source())
