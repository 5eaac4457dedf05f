"""`nginx-meshctl local`: applying, deleting and showing Kubernetes objects."""

from __future__ import annotations

import time

import click

from nginx_mesh.api import discovery
from nginx_mesh.api.meta import Object
from nginx_mesh.cli.errors import ApiError, Failure
from nginx_mesh.cli.manifests import read_files
from nginx_mesh.cli.table import Resource, table, whole
from nginx_mesh.cli.unix_http import UnixHttpClient

from .manifests import apply_manifests
from .options import files_option, namespace_option, on_api
from .references import find_kind, list_references, object_path, parse_references
from .waiting import wait_gone

_ALL = ("pods", "services", "daemonsets", "deployments", "statefulsets", "jobs")


@click.command()
@on_api
@files_option(required=True)
@namespace_option
def apply(api: UnixHttpClient, files: tuple[str, ...], namespace: str) -> None:
    """Create or change objects as manifests say: all of them, or none if any is wrong.

    \b
    Examples:
      nginx-meshctl local apply -f policies.yaml
      cat app.yaml | nginx-meshctl local apply -f -
    """
    if not apply_manifests(api, read_files(files), namespace):
        raise Failure("no objects passed to apply")


@click.command()
@on_api
@click.argument("targets", nargs=-1, metavar="[KIND NAME... | KIND/NAME...]")
@files_option(required=False)
@namespace_option
@click.option("--all", "everything", is_flag=True, help="Delete all objects of KIND in the namespace.")
@click.option("--ignore-not-found", is_flag=True, help="Take an object that is not there as deleted.")
@click.option("--grace-period", type=click.IntRange(0), help="Seconds that pods get to end, instead of their own.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the objects are gone.")
def delete(
    api: UnixHttpClient,
    targets: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str,
    everything: bool,
    ignore_not_found: bool,
    grace_period: int | None,
    wait: bool,
) -> None:
    """Delete objects, and what belongs to them.

    \b
    Examples:
      nginx-meshctl local delete -f app.yaml
      nginx-meshctl local delete pod web-0 web-1
      nginx-meshctl local delete deploy/web -n shop
    """
    if bool(files) == bool(targets):
        raise Failure("say what to delete: either files (-f) or a kind and names")
    query = {"gracePeriodSeconds": grace_period}
    missing: list[str] = []
    deleted: list[tuple[str, str]] = []
    if files:
        documents = {"files": read_files(files), "namespace": namespace}
        for item in api.request("POST", "/mesh/delete", documents, query=query):
            kind = discovery.by_kind(item["kind"])
            if item["uid"] is None:
                missing.append(f'{kind.PLURAL} "{item["name"]}" not found')
            else:
                click.echo(f'{discovery.title(kind)} "{item["name"]}" deleted')
                deleted.append((object_path(kind, item["namespace"], item["name"]), item["uid"]))
    else:
        for kind, name in list_references(api, targets, namespace) if everything else parse_references(targets):
            path = object_path(kind, namespace if kind.NAMESPACED else "", name)
            try:
                gone = api.request("DELETE", path, query=query)
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
                missing.append(error.message)
            else:
                click.echo(f'{discovery.title(kind)} "{name}" deleted')
                deleted.append((path, gone["metadata"]["uid"]))
    if wait:
        for path, uid in deleted:
            wait_gone(api, path, uid)
    if missing and not ignore_not_found:
        raise Failure("\n".join(f"Error from server (NotFound): {reason}" for reason in missing), prefix="")


@click.command()
@on_api
@click.argument("what", nargs=-1, required=True, metavar="KIND[,KIND...] [NAME...]")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option(
    "-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="More columns, or the whole objects."
)
def get(api: UnixHttpClient, what: tuple[str, ...], namespace: str, all_namespaces: bool, output: str | None) -> None:
    """Show objects.

    \b
    Examples:
      nginx-meshctl local get pods -A -o wide
      nginx-meshctl local get deploy,svc -n shop
      nginx-meshctl local get pod/web-0 -o yaml
    """
    names: list[tuple[type[Object], str]] = []
    if "/" in what[0] or len(what) > 1:
        names = parse_references(what)
        found = [api.get(object_path(kind, namespace if kind.NAMESPACED else "", name)) for kind, name in names]
        wanted = list(dict.fromkeys(kind for kind, _ in names))
    else:
        titles = [part for title in what[0].split(",") for part in (_ALL if title == "all" else (title,))]
        wanted = list(dict.fromkeys(find_kind(title) for title in titles))
        found = []
        for kind in wanted:
            where = namespace if kind.NAMESPACED and not all_namespaces else ""
            found += api.get(object_path(kind, where))["items"]
    if output in ("json", "yaml"):
        click.echo(whole(found[0] if len(names) == 1 else _as_list(found), output), nl=False)
    elif output == "name":
        for item in found:
            click.echo(f"{discovery.title(discovery.by_kind(item['kind']))}/{item['metadata']['name']}")
    elif not found:
        anywhere = all_namespaces or not any(kind.NAMESPACED for kind in wanted)
        click.echo("No resources found" if anywhere else f"No resources found in {namespace} namespace.", err=True)
    else:
        groups = [(kind, [item for item in found if item["kind"] == kind.KIND]) for kind in wanted]
        shown = [(kind, items) for kind, items in groups if items]
        tables = [
            table(
                kind.KIND,
                items,
                now=time.time(),
                wide=output == "wide",
                with_namespace=all_namespaces and kind.NAMESPACED,
                prefix=f"{discovery.title(kind)}/" if len(wanted) > 1 else "",
            )
            for kind, items in shown
        ]
        click.echo("\n\n".join(tables))


@click.command()
@on_api
@click.argument("what", nargs=-1, required=True, metavar="KIND NAME... | KIND/NAME...")
@namespace_option
def describe(api: UnixHttpClient, what: tuple[str, ...], namespace: str) -> None:
    """Show an object in full, with what happened to it.

    \b
    Examples:
      nginx-meshctl local describe pod web-0
      nginx-meshctl local describe deploy/web -n shop
    """
    from nginx_mesh.cli.describe import describe as describe_object

    texts = []
    for kind, name in parse_references(what):
        path = object_path(kind, namespace if kind.NAMESPACED else "", name)
        answer = api.get(path + "/description")
        more = {part: answer.get(part) for part in ("endpoints", "identity")}
        texts.append(describe_object(answer["object"], answer["events"], now=time.time(), **more))
    click.echo("\n\n\n".join(texts))


def _as_list(items: list[Resource]) -> Resource:
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
