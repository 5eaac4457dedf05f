"""Writes the generated parts of docs/reference from the code that they describe; `--check` only says what is stale.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else in those documents is
written by hand.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import click
import msgspec

from nginx_mesh.api import annotations as mesh
from nginx_mesh.api.nsm import MeshConfigSpec
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.values import LbMethod, MtlsMode
from nginx_mesh.cli.local import up
from nginx_mesh.cli.main import cli
from nginx_mesh.identity.config import IdentityConfig
from nginx_mesh.lint import RULES
from nginx_mesh.traffic.process import main as metrics_server

ROOT: Final = Path(__file__).parents[1]
REFERENCE: Final = ROOT / "docs" / "reference"
NGINX_CONF: Final = ROOT / "src/nginx_mesh/sidecar/rootfs/etc/nginx-mesh/nginx.conf"

_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FAMILIES: Final = ROOT / "src/nginx_mesh/sidecar/lua/mesh/families.lua"

_FAMILY = re.compile(r'^    \{ "(\w+)", "(\w+)", "([^"]*)", "([^"]*)" \},$', re.MULTILINE)
_LOG_FORMAT = re.compile(r"log_format (default|json)(?: escape=json)?\s+((?:'[^']*'\s*)+);")

# Fields of a MeshConfig and the settings that they set.
CONFIG_FIELDS: Final = {
    "mtls.mode": "mtls_mode",
    "mtls.caTTL": "ca_ttl",
    "mtls.svidTTL": "svid_ttl",
    "mtls.caKeyType": "ca_key_type",
    "accessControlMode": "access_control_mode",
    "clientMaxBodySize": "client_max_body_size",
    "nginxErrorLogLevel": "error_log_level",
    "nginxLBMethod": "lb_method",
    "nginxLogFormat": "log_format",
    "prometheusAddress": "prometheus_address",
    "telemetry.exporters.otlp.host": "otlp",
    "telemetry.exporters.otlp.port": "otlp",
    "telemetry.samplerRatio": "sampler_ratio",
}
# Fields of the configuration file of identity.
IDENTITY_FIELDS: Final = {
    "mtls.trustDomain": "As `--mtls-trust-domain`.",
    "mtls.caTTL": "As `--mtls-ca-ttl`.",
    "mtls.svidTTL": "As `--mtls-svid-ttl`.",
    "mtls.caKeyType": "As `--mtls-ca-key-type`.",
    "mtls.upstreamAuthority": "As `--mtls-upstream-ca-conf`: a file, or what would be in it.",
    "mtls.spireServerKeyManager": "As `--spire-server-key-manager`.",
    "mtls.persistentStorage": "As `--persistent-storage`; `auto` is `on`.",
    "identity.provider": "Who issues identities: this process, an identity server elsewhere, or SPIRE.",
    "identity.dataDir": "Directory of the datastore and of keys.",
    "identity.serverID": "Tells servers that share a datastore apart. By default the host's name.",
    "identity.listen": "Where agents are served: `host:port` or `unix:/path`. Not in a local mesh's own process.",
    "identity.adminSocket": "Unix socket for operators. Not in a local mesh's own process.",
    "identity.healthAddress": "Where [health](../guides/operating.md#health) is told; a port alone is on loopback.",
    "identity.bundlePath": "File that is kept at the newest bundle (PEM), for agents to start from.",
    "identity.datastore": "Where registrations are kept: see [storage](../guides/identity-storage.md).",
    "identity.attestation.k8sPsat.serviceAccountAllowList": "Service accounts of agents, `namespace:name`.",
    "identity.attestation.k8sPsat.audience": "Whom the agents' tokens have to be for.",
    "identity.attestation.k8sPsat.kubeConfigFile": "How to reach the cluster; by default as the pod that this is.",
    "identity.server.address": "`provider: server`: where it is, `host:port` or `unix:/path`.",
    "identity.server.trustBundle": "Roots (PEM) that the server is believed by, besides those that it announced.",
    "identity.server.joinTokenFile": "A join token that was made for this agent.",
    "identity.server.tokenPath": "A service-account token that Kubernetes projects and keeps fresh.",
    "identity.spire.agentSocket": "`provider: spire`: the agent's Workload API socket.",
    "identity.spire.serverSocket": "The server's API socket, if it is on this machine.",
    "identity.spire.serverAddress": "Else its address, `host:port`.",
    "identity.spire.adminID": "The administrator's SPIFFE ID that we have there.",
    "identity.spire.parentID": "The agent's SPIFFE ID.",
    "identity.spire.selectors": "What the agent knows us by, `type:value`.",
    "identity.spire.federatesWith": "Trust domains whose bundles our pods are given.",
    "identity.spire.entryPrefix": "What IDs of our entries begin with.",
    "identity.federation.bundleEndpoint.address": "Where our bundle is published, `host:port`.",
    "identity.federation.bundleEndpoint.profile": "How the endpoint proves itself.",
    "identity.federation.bundleEndpoint.certFile": "With `https_web`: its certificate chain,",
    "identity.federation.bundleEndpoint.keyFile": "and the key.",
    "identity.federation.webCAFile": "Roots that endpoints with `https_web` are verified by, instead of the system's.",
}
# The class is what a MeshConfig refers to, not a setting.
_NO_SETTING: Final = {"meshConfigClassName"}


class Mark(NamedTuple):
    """A label or annotation: what it stands on, what it may be, what it does. `{VALUE}` of a key is the reader's."""

    on: str
    values: str
    meaning: str


def _words(words: Any) -> str:
    return ", ".join(f"`{word}`" for word in get_args(words))


LABELS: Final = {
    mesh.AUTO_INJECT: Mark(
        "Namespace, Pod",
        _words(mesh.AutoInject),
        "Whether new pods get a sidecar. A pod's label wins over its namespace's. Without either there is none.",
    ),
    mesh.ENABLE_INGRESS: Mark(
        "Pod",
        "`true`, `false`",
        "The pod is an ingress gateway: it gets the volume for the SPIFFE Workload API and no sidecar.",
    ),
    mesh.ENABLE_EGRESS: Mark(
        "Pod",
        "`true`, `false`",
        "The pod is an egress gateway: it gets the volume for the SPIFFE Workload API and no sidecar.",
    ),
}
ANNOTATIONS: Final = {
    mesh.MTLS_MODE: Mark("Pod", _words(MtlsMode), "The pod's own mTLS mode. Ignored when the mesh is `strict`."),
    mesh.CLIENT_MAX_BODY_SIZE: Mark(
        "Pod", "nginx size, `0` for no limit", "The largest request body that the pod takes."
    ),
    mesh.IGNORE_INCOMING_PORTS: Mark(
        "Pod", 'ports, for example `"80, 443"`', "Incoming connections to these ports bypass the sidecar."
    ),
    mesh.IGNORE_OUTGOING_PORTS: Mark(
        "Pod",
        'ports, for example `"5432"`',
        "Outgoing connections to these ports bypass the sidecar. Port 53 always does.",
    ),
    mesh.DEFAULT_EGRESS_ALLOWED: Mark(
        "Pod", "`true`, `false`", "Calls to what is not in the mesh go through the egress gateway."
    ),
    mesh.LB_METHOD: Mark("Service", _words(LbMethod), "How requests are shared among the service's endpoints."),
    mesh.PEER_SPIFFE_ID: Mark(
        "Service without selector",
        "SPIFFE ID, for example `spiffe://other.example/ns/shop/sa/web`",
        "The endpoints that EndpointSlices list for the service are called by mTLS and must prove this ID; see "
        "[other trust domains](../guides/mtls.md#other-trust-domains).",
    ),
    mesh.INTERNAL_ROUTE: Mark("Ingress", "`true`, `false`", "The Ingress is a route of the egress gateway."),
}
SET_BY_INJECTION: Final = {
    mesh.STATUS: Mark("Pod annotation", f"`{mesh.INJECTED}`", "The pod has a sidecar."),
    mesh.PROBES: Mark("Pod annotation", "JSON", "The health checks that were redirected to the sidecar, as they were."),
    mesh.SPIFFE_ID: Mark("Pod label", "`true`", "The pod has a SPIFFE identity."),
    f"{mesh.OWNER_PREFIX}<kind>": Mark(
        "Pod label",
        "name",
        "The workload that made the pod; `<kind>` is `deployment`, `daemonset`, `statefulset`, `replicaset`, "
        "`replicationcontroller` or `job`.",
    ),
}


def cli_reference() -> str:
    """Every command with its arguments and options."""
    return "\n".join(_command(cli, ("nginx-meshctl",), _context()))


def metrics_server_reference() -> str:
    """The flags of nginx-mesh-metrics."""
    words = "nginx-mesh-metrics"
    return "\n".join(_command(metrics_server, (words,), click.Context(metrics_server, info_name=words)))


def commands() -> dict[str, click.Command]:
    """Every command by the words that call it, such as "nginx-meshctl local up"."""
    return dict(_walk(cli, ("nginx-meshctl",), _context()))


def _context() -> click.Context:
    # The settings of the group are passed on: click keeps the option --help that it makes with the first context.
    return click.Context(cli, info_name="nginx-meshctl", **cli.context_settings)


def config_reference() -> str:
    """The fields of a MeshConfig's spec beside the flags that set the same."""
    fields = [path for path in _fields(MeshConfigSpec, "") if path not in _NO_SETTING]
    if set(fields) != set(CONFIG_FIELDS):
        raise SystemExit(f"CONFIG_FIELDS is stale: {sorted(set(fields) ^ set(CONFIG_FIELDS))}")
    flags = _mesh_flags()
    rows = [["Field", "Flag", "Values", "Default", ""]]
    for path in fields:
        flag = flags[CONFIG_FIELDS[path]]
        rows.append([f"`{path}`", f"`{flag.opts[0]}`", _values(flag, path), _default(flag), flag.help or ""])
    return _table(rows)


def install_reference() -> str:
    """The flags of what cannot change while the mesh runs."""
    live = set(CONFIG_FIELDS.values())
    rows = [["Flag", "Values", "Default", ""]]
    for name, flag in _mesh_flags().items():
        if name not in live:
            rows.append([f"`{flag.opts[0]}`", _values(flag), _default(flag), flag.help or ""])
    return _table(rows)


def identity_reference() -> str:
    """The fields of the configuration file of identity."""
    fields = dict(_defaults(IdentityConfig, ""))
    if set(fields) != set(IDENTITY_FIELDS):
        raise SystemExit(f"IDENTITY_FIELDS is stale: {sorted(set(fields) ^ set(IDENTITY_FIELDS))}")
    return _table([["Field", "Default", ""], *([f"`{path}`", fields[path], IDENTITY_FIELDS[path]] for path in fields)])


def marks_reference(marks: Mapping[str, Mark]) -> str:
    """A table of labels or annotations."""
    return _table([["Key", "On", "Values", ""], *([f"`{key}`", *mark] for key, mark in marks.items())])


def log_formats() -> str:
    """The access log formats as nginx.conf has them: those of TCP first, as there."""
    found = _LOG_FORMAT.findall(NGINX_CONF.read_text())
    parts = []
    for number, (name, lines) in enumerate(found):
        protocol = "TCP" if number < len(found) / 2 else "HTTP and gRPC"
        parts += [f"`{name}`, {protocol}:", "", "```text", "".join(re.findall(r"'([^']*)'", lines)), "```", ""]
    return "\n".join(parts)


def metrics_reference() -> str:
    """The metrics of a sidecar."""
    text = FAMILIES.read_text()
    found = _FAMILY.findall(text)
    if len(found) != text.count("\n    {"):
        raise SystemExit(f"a row of {FAMILIES.name} is not as the others")
    rows = [["Name", "Type", "Labels", ""]]
    for name, kind, labels, meaning in found:
        words = [word if word == "endpoint" else f"`{word}`" for word in labels.split(", ") if word]
        rows.append([f"`{name}`", kind, ", ".join(words), meaning])
    return _table(rows)


def check_reference() -> str:
    """Every rule of `nginx-meshctl check`."""
    rows = [["Code", "Severity", "What it is", "What to do"]]
    return _table(rows + [[f"`{code}`", rule.severity, rule.title, rule.remedy] for code, rule in RULES.items()])


PARTS: Final[dict[str, Callable[[], str]]] = {
    "cli": cli_reference,
    "metrics-server": metrics_server_reference,
    "meshconfig": config_reference,
    "install-flags": install_reference,
    "identity-config": identity_reference,
    "labels": lambda: marks_reference(LABELS),
    "annotations": lambda: marks_reference(ANNOTATIONS),
    "set-by-injection": lambda: marks_reference(SET_BY_INJECTION),
    "log-formats": log_formats,
    "metrics": metrics_reference,
    "check": check_reference,
}


def filled(text: str) -> str:
    """A document with its generated parts as they should be. Raises KeyError for a part that nobody generates."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]().strip()}\n\n{part[3]}", text)


def stale() -> dict[Path, str]:
    """Documents whose generated parts are not what the code says, with what they should be."""
    documents = {path: path.read_text() for path in sorted(REFERENCE.glob("*.md"))}
    return {path: wanted for path, text in documents.items() if (wanted := filled(text)) != text}


def main(arguments: list[str]) -> int:
    """Exit code 1 when `--check` finds something stale."""
    check = arguments == ["--check"]
    found = stale()
    for path, wanted in found.items():
        print(f"{path.relative_to(ROOT)}: {'stale: run scripts/reference.py' if check else 'written'}")
        if not check:
            path.write_text(wanted)
    return int(check and bool(found))


def _walk(
    command: click.Command, words: tuple[str, ...], context: click.Context
) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(words), command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _walk(child, (*words, name), click.Context(child, info_name=name, parent=context))


def _command(command: click.Command, words: tuple[str, ...], context: click.Context) -> Iterator[str]:
    yield f"## {' '.join(words)}"
    yield ""
    yield from _described(command.help or "")
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece)
    yield f"```text\n{' '.join(words)} {usage}\n```"
    yield ""
    shown = [flag for flag in command.params if isinstance(flag, click.Option) and not flag.hidden]
    if shown:
        rows = [["Option", "Values", "Default", ""]]
        rows += [[_names(flag), _values(flag), _default(flag), flag.help or ""] for flag in shown]
        yield _table(rows)
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _command(child, (*words, name), click.Context(child, info_name=name, parent=context))


def _described(text: str) -> Iterator[str]:
    """A help text: paragraphs, and what stands after click's mark for "as it is" as a block of code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = [line.strip() for line in paragraph.splitlines()]
        if lines[0] in ("\b", ""):
            title, *code = lines[1:]
            lines = [title, "", "```sh", *code, "```"]
        yield "\n".join(lines)
        yield ""


def _mesh_flags() -> dict[str, click.Option]:
    names = MeshSettings.__struct_fields__
    flags = {flag.name: flag for flag in up.params if isinstance(flag, click.Option)}
    return {name: flags[name] for name in names}


def _names(flag: click.Option) -> str:
    return ", ".join(f"`{name}`" for name in (*flag.opts, *flag.secondary_opts))


def _values(flag: click.Option, path: str = "") -> str:
    if path.endswith(".otlp.host"):
        return "name or address"
    if path.endswith(".otlp.port"):
        return "1 to 65535"
    if flag.is_flag:
        return ""
    if isinstance(flag.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in flag.type.choices)
    return flag.metavar.lower() if flag.metavar else flag.type.name


def _default(flag: click.Option) -> str:
    if isinstance(flag.show_default, str):
        return flag.show_default
    if flag.is_flag and flag.secondary_opts:
        return f"`{flag.opts[0] if flag.default else flag.secondary_opts[0]}`"
    # A default that says "nothing was given" is an object of click's own, not text or a number.
    if flag.is_flag or flag.multiple or not isinstance(flag.default, str | int | float):
        return ""
    return f"`{flag.default}`"


def _fields(struct: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    return (path for path, _ in _defaults(struct, prefix))


def _defaults(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, str]]:
    """The paths of all fields, and their defaults in words."""
    for field in msgspec.structs.fields(struct):
        path = prefix + field.encode_name
        parts = [kind for kind in _alternatives(field.type) if isinstance(kind, type)]
        inner = next((kind for kind in parts if issubclass(kind, msgspec.Struct)), None)
        if inner is not None:
            yield from _defaults(inner, f"{path}.")
        elif field.required:
            yield path, "required"
        else:
            yield path, f"`{field.default}`" if isinstance(field.default, str) and field.default else ""


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return ()
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _table(rows: list[list[str]]) -> str:
    head, *body = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(cells)} |".replace("  ", " ") for cells in (head, ["---"] * len(head), *body)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
