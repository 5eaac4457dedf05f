"""`nginx-meshctl inject`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nginx_mesh.api.documents import MAX_BYTES, is_json, read, write_yaml
from nginx_mesh.api.errors import FieldError, one_line
from nginx_mesh.api.listing import with_implied_kind
from nginx_mesh.api.loaded import ManifestError, described
from nginx_mesh.api.values import parse_ports
from nginx_mesh.inject import InjectSettings, inject_document

from .errors import Failure
from .params import Parsed

_PORTS = Parsed("ports", parse_ports)

_ITEM = re.compile(r"items\[([0-9]+)\]\.?")


@click.command()
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    help="Manifest with the resources to inject; by default stdin.",
)
@click.option(
    "--ignore-incoming-ports",
    "incoming",
    type=_PORTS,
    multiple=True,
    help="Ports whose incoming connections bypass the sidecar, for example 80,443.",
)
@click.option(
    "--ignore-outgoing-ports",
    "outgoing",
    type=_PORTS,
    multiple=True,
    help="Ports to which outgoing connections bypass the sidecar.",
)
def inject(path: Path, incoming: Sequence[tuple[int, ...]], outgoing: Sequence[tuple[int, ...]]) -> None:
    """Inject sidecars into the pods of a manifest, YAML or JSON, and print the result.

    \b
    Examples:
      nginx-meshctl inject -f ./my-app.yaml | kubectl apply -f -
      nginx-meshctl inject < ./my-app.json > ./my-injected-app.json
      nginx-meshctl inject --ignore-outgoing-ports 1433,1434 -f ./my-app.yaml
    """
    settings = InjectSettings(ignore_incoming_ports=sum(incoming, ()), ignore_outgoing_ports=sum(outgoing, ()))
    source, data = _read(path)
    documents: list[Any] = []
    warnings: list[str] = []
    errors: list[ManifestError] = []
    for document in read(data):
        where = f"{source} document {document.number}"
        try:
            if document.error is not None:
                raise document.error
            result = inject_document(document.value, settings)
        except FieldError as error:
            name = _object_at(document.value, error.field)
            errors.append(ManifestError(source, document.number, name, error.field, error.reason))
            continue
        documents.append(result.document)
        warnings += [
            f"{where}: {one_line(outcome.object)} is not injected: {one_line(outcome.reason)}"
            for outcome in result.outcomes
            if not outcome.injected
        ]
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if errors:
        raise Failure("\nerror: ".join(map(str, errors)))
    click.echo(_json(documents) if is_json(data) else write_yaml(documents), nl=False)


def _read(path: Path) -> tuple[str, bytes]:
    # One byte more than is allowed is enough to be refused.
    if str(path) == "-":
        return "stdin", sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with path.open("rb") as file:
            return str(path), file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from None


def _object_at(value: Any, field: str) -> str:
    """ "Kind namespace/name" of what has this field: a document, or an object of the list that it is."""
    while isinstance(value, dict) and (place := _ITEM.match(field)) is not None:
        item = value["items"][int(place[1])]
        value, field = with_implied_kind(item, value) if isinstance(item, dict) else item, field[place.end() :]
    return described(value)


def _json(documents: Sequence[Any]) -> str:
    return "".join(json.dumps(document, indent=2, ensure_ascii=False) + "\n" for document in documents)
