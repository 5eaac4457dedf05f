"""The entry point: the group of all commands, each of which is imported when it is called."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from nginx_mesh.api.errors import FieldError

from .group import LazyGroup
from .installation import Connection
from .params import Parsed

_TIMEOUT = re.compile(r"(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6}(?:\.[0-9]+)?)s)?")
_EXAMPLES = """\b
Examples:
  # Try the mesh on this machine
  nginx-meshctl local up -f app.yaml
\b
  # Put sidecars into the pods of a manifest
  nginx-meshctl inject -f app.yaml | kubectl apply -f -
"""


def parse_timeout(text: str) -> float:
    """Return the seconds in a duration such as 5s, 1m30s or 2h. Raises FieldError."""
    found = _TIMEOUT.fullmatch(text)
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise FieldError("", f'"{text}" is not a duration such as 5s or 1m30s')
    return total


COMMANDS: Final = {
    "check": ("nginx_mesh.cli.check:check", "Look for mistakes in manifests, without a mesh."),
    "completion": ("nginx_mesh.cli.completion:completion", "Generate the completion script of a shell."),
    "config": ("nginx_mesh.cli.config:config", "Display the settings in force."),
    "dashboard": ("nginx_mesh.cli.dashboard:dashboard", "Show the mesh in a web browser."),
    "explain": ("nginx_mesh.cli.explain:explain", "Say what would become of a request, and what decides it."),
    "identity": ("nginx_mesh.cli.identity.commands:identity", "Show and manage who has which identity."),
    "inject": ("nginx_mesh.cli.inject:inject", "Inject sidecars into the pods of a manifest."),
    "local": ("nginx_mesh.cli.local.commands:local", "Run a mesh on this machine."),
    "services": ("nginx_mesh.cli.services:services", "List the Services of the mesh."),
    "status": ("nginx_mesh.cli.status:status", "Check that the mesh is well."),
    "supportpkg": ("nginx_mesh.cli.supportpkg:supportpkg", "Create a support package."),
    "tap": ("nginx_mesh.cli.tap:tap", "Watch requests as they happen."),
    "top": ("nginx_mesh.cli.top:top", "Display traffic statistics."),
    "version": ("nginx_mesh.cli.version:version", "Print the versions of what runs."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXAMPLES,
)
@click.option(
    "-k",
    "--kubeconfig",
    type=click.Path(path_type=Path),
    default=lambda: Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"),
    show_default="$KUBECONFIG or ~/.kube/config",
    help="Path to the kubectl configuration.",
)
@click.option("-n", "--namespace", default="nginx-mesh", show_default=True, help="Namespace of the control plane.")
@click.option(
    "-t",
    "--timeout",
    type=Parsed("duration", parse_timeout),
    default="5s",
    show_default=True,
    help="Timeout of communication with the control plane.",
)
@click.pass_context
def cli(ctx: click.Context, kubeconfig: Path, namespace: str, timeout: float) -> None:
    """Control NGINX Mesh, a service mesh on open-source NGINX."""
    ctx.obj = Connection(kubeconfig, namespace, timeout)


def main() -> None:
    """`nginx-meshctl`. Errors read `error: …` on stderr; the exit code is 1, or 2 for wrong usage."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    try:
        code = cli.main(arguments, prog_name="nginx-meshctl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
        return 0
    except click.UsageError as error:
        if error.ctx is not None:
            click.echo(f"{error.ctx.get_usage()}\n\nSee '{error.ctx.command_path} --help'.", err=True)
        click.echo(f"error: {error.format_message()}", err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough. Nothing more may be written when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0
