"""Writes the generated parts of docs/reference from the code that they describe; `--check` only reports stale ones.

A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`. The rest of those documents is written by
hand.
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
from nginx_mesh.cli.local.lifecycle import up
from nginx_mesh.cli.main import cli
from nginx_mesh.identity.server.config import IdentityConfig
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
    "identity.healthAddress": "Address for [health](../guides/operating.md#health); a port alone is on loopback.",
    "identity.bundlePath": "File that always holds the newest trust bundle (PEM), for agents to start from.",
    "identity.datastore": "Where registrations are kept: see [storage](../guides/identity-storage.md).",
    "identity.attestation.k8sPsat.serviceAccountAllowList": "Service accounts of agents, `namespace:name`.",
    "identity.attestation.k8sPsat.audience": "Audience that the agents' tokens must have.",
    "identity.attestation.k8sPsat.kubeConfigFile": "How to reach the cluster; by default as the pod's service account.",
    "identity.server.address": "With `provider: server`: its address, `host:port` or `unix:/path`.",
    "identity.server.trustBundle": "Roots (PEM) that the server is verified by, besides those that it announced.",
    "identity.server.joinTokenFile": "A join token that was made for this agent.",
    "identity.server.tokenPath": "A service-account token that Kubernetes projects and keeps fresh.",
    "identity.spire.agentSocket": "With `provider: spire`: the agent's Workload API socket.",
    "identity.spire.serverSocket": "The server's API socket, if it is on this machine.",
    "identity.spire.serverAddress": "The server's address, `host:port`, if it is on another machine.",
    "identity.spire.adminID": "Our SPIFFE ID in SPIRE, which is that of an administrator.",
    "identity.spire.parentID": "The agent's SPIFFE ID.",
    "identity.spire.selectors": "Selectors by which the agent attests us, `type:value`.",
    "identity.spire.federatesWith": "Trust domains whose bundles our pods are given.",
    "identity.spire.entryPrefix": "Prefix of the IDs of our entries.",
    "identity.federation.bundleEndpoint.address": "Address at which our trust bundle is published, `host:port`.",
    "identity.federation.bundleEndpoint.profile": "How the endpoint authenticates itself.",
    "identity.federation.bundleEndpoint.certFile": "With `https_web`: the certificate chain of the endpoint.",
    "identity.federation.bundleEndpoint.keyFile": "With `https_web`: the private key of the endpoint.",
    "identity.federation.webCAFile": "Roots that endpoints with `https_web` are verified by, instead of the system's.",
}
# The class is what a MeshConfig refers to, not a setting.
_NO_SETTING: Final = {"meshConfigClassName"}


class MetadataKey(NamedTuple):
    """A label or annotation: the kinds of objects that have it, its allowed values, and its meaning."""

    on: str
    values: str
    meaning: str


def _literals(type_: Any) -> str:
    return ", ".join(f"`{value}`" for value in get_args(type_))


LABELS: Final = {
    mesh.AUTO_INJECT: MetadataKey(
        "Namespace, Pod",
        _literals(mesh.AutoInject),
        "Whether new pods get a sidecar. A pod's label wins over its namespace's. Without either there is none.",
    ),
    mesh.ENABLE_INGRESS: MetadataKey(
        "Pod",
        "`true`, `false`",
        "The pod is an ingress gateway: it gets the volume for the SPIFFE Workload API and no sidecar.",
    ),
    mesh.ENABLE_EGRESS: MetadataKey(
        "Pod",
        "`true`, `false`",
        "The pod is an egress gateway: it gets the volume for the SPIFFE Workload API and no sidecar.",
    ),
}
ANNOTATIONS: Final = {
    mesh.MTLS_MODE: MetadataKey(
        "Pod", _literals(MtlsMode), "The pod's own mTLS mode. Ignored when the mesh is `strict`."
    ),
    mesh.CLIENT_MAX_BODY_SIZE: MetadataKey(
        "Pod", "nginx size, `0` for no limit", "The largest request body that the pod takes."
    ),
    mesh.IGNORE_INCOMING_PORTS: MetadataKey(
        "Pod", 'ports, for example `"80, 443"`', "Incoming connections to these ports bypass the sidecar."
    ),
    mesh.IGNORE_OUTGOING_PORTS: MetadataKey(
        "Pod",
        'ports, for example `"5432"`',
        "Outgoing connections to these ports bypass the sidecar. Port 53 always does.",
    ),
    mesh.DEFAULT_EGRESS_ALLOWED: MetadataKey(
        "Pod", "`true`, `false`", "Calls to addresses outside of the mesh go through the egress gateway."
    ),
    mesh.LB_METHOD: MetadataKey(
        "Service", _literals(LbMethod), "How requests are shared among the service's endpoints."
    ),
    mesh.PEER_SPIFFE_ID: MetadataKey(
        "Service without selector",
        "SPIFFE ID, for example `spiffe://other.example/ns/shop/sa/web`",
        "The endpoints that EndpointSlices list for the service are called by mTLS and must prove this ID; see "
        "[other trust domains](../guides/mtls.md#other-trust-domains).",
    ),
    mesh.INTERNAL_ROUTE: MetadataKey("Ingress", "`true`, `false`", "The Ingress is a route of the egress gateway."),
}
SET_BY_INJECTION: Final = {
    mesh.STATUS: MetadataKey("Pod annotation", f"`{mesh.INJECTED}`", "The pod has a sidecar."),
    mesh.PROBES: MetadataKey(
        "Pod annotation", "JSON", "The health checks that were redirected to the sidecar, as they were."
    ),
    mesh.SPIFFE_ID: MetadataKey("Pod label", "`true`", "The pod has a SPIFFE identity."),
    f"{mesh.OWNER_PREFIX}<kind>": MetadataKey(
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
    name = "nginx-mesh-metrics"
    return "\n".join(_command(metrics_server, (name,), click.Context(metrics_server, info_name=name)))


def commands() -> dict[str, click.Command]:
    """Every command by its full name, such as "nginx-meshctl local up"."""
    return dict(_walk(cli, ("nginx-meshctl",), _context()))


def _context() -> click.Context:
    # The settings of the group are needed: click keeps the option --help that it makes with the first context.
    return click.Context(cli, info_name="nginx-meshctl", **cli.context_settings)


def config_reference() -> str:
    """The fields of a MeshConfig's spec, each with the flag for the same setting."""
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
    """The flags for settings that cannot change while the mesh runs."""
    live = set(CONFIG_FIELDS.values())
    rows = [["Flag", "Values", "Default", ""]]
    for name, flag in _mesh_flags().items():
        if name not in live:
            rows.append([f"`{flag.opts[0]}`", _values(flag), _default(flag), flag.help or ""])
    return _table(rows)


def identity_reference() -> str:
    """The fields of the identity server's configuration file."""
    fields = dict(_defaults(IdentityConfig, ""))
    if set(fields) != set(IDENTITY_FIELDS):
        raise SystemExit(f"IDENTITY_FIELDS is stale: {sorted(set(fields) ^ set(IDENTITY_FIELDS))}")
    return _table([["Field", "Default", ""], *([f"`{path}`", fields[path], IDENTITY_FIELDS[path]] for path in fields)])


def metadata_reference(keys: Mapping[str, MetadataKey]) -> str:
    """A table of labels or annotations."""
    return _table([["Key", "On", "Values", ""], *([f"`{key}`", *entry] for key, entry in keys.items())])


def log_formats() -> str:
    """The access log formats of nginx.conf; those for TCP come first, as in the file."""
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
        raise SystemExit(f"a row of {FAMILIES.name} is not like the other rows")
    rows = [["Name", "Type", "Labels", ""]]
    for name, kind, labels, meaning in found:
        names = [label if label == "endpoint" else f"`{label}`" for label in labels.split(", ") if label]
        rows.append([f"`{name}`", kind, ", ".join(names), meaning])
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
    "labels": lambda: metadata_reference(LABELS),
    "annotations": lambda: metadata_reference(ANNOTATIONS),
    "set-by-injection": lambda: metadata_reference(SET_BY_INJECTION),
    "log-formats": log_formats,
    "metrics": metrics_reference,
    "check": check_reference,
}


def filled(text: str) -> str:
    """A document with its generated parts up to date. Raises KeyError for a part that no function generates."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]().strip()}\n\n{part[3]}", text)


def stale() -> dict[Path, str]:
    """The documents whose generated parts are out of date, with their text as it should be."""
    documents = {path: path.read_text() for path in sorted(REFERENCE.glob("*.md"))}
    return {path: wanted for path, text in documents.items() if (wanted := filled(text)) != text}


def main(arguments: list[str]) -> int:
    """Run the script; exit code 1 when `--check` finds a stale document."""
    check = arguments == ["--check"]
    found = stale()
    for path, wanted in found.items():
        print(f"{path.relative_to(ROOT)}: {'stale: run scripts/reference.py' if check else 'written'}")
        if not check:
            path.write_text(wanted)
    return int(check and bool(found))


def _walk(command: click.Command, path: tuple[str, ...], context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _walk(child, (*path, name), click.Context(child, info_name=name, parent=context))


def _command(command: click.Command, path: tuple[str, ...], context: click.Context) -> Iterator[str]:
    yield f"## {' '.join(path)}"
    yield ""
    yield from _described(command.help or "")
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece)
    yield f"```text\n{' '.join(path)} {usage}\n```"
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
                yield from _command(child, (*path, name), click.Context(child, info_name=name, parent=context))


def _described(text: str) -> Iterator[str]:
    """A help text: paragraphs, and as a code block what follows click's mark (\\b) for text that is not wrapped."""
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
    # An option without a default has an object of click as its default, which is neither text nor a number.
    if flag.is_flag or flag.multiple or not isinstance(flag.default, str | int | float):
        return ""
    return f"`{flag.default}`"


def _fields(struct: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    return (path for path, _ in _defaults(struct, prefix))


def _defaults(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, str]]:
    """The paths of all fields, and their defaults as the table shows them."""
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
