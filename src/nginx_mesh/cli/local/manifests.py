"""Applying manifests to a local mesh."""

from __future__ import annotations

import click

from nginx_mesh.cli.unix_http import UnixHttpClient


def apply_manifests(api: UnixHttpClient, files: list[dict[str, str]], namespace: str) -> int:
    """Apply manifests that `read_files` returned, print the outcome for each object, and return how many there are."""
    outcomes = api.request("POST", "/mesh/apply", {"files": files, "namespace": namespace}) if files else []
    for outcome in outcomes:
        for warning in outcome["warnings"]:
            click.echo(f"Warning: {warning}", err=True)
        click.echo(f"{outcome['object']} {outcome['outcome']}")
    return len(outcomes)
