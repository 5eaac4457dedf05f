"""Envoy on both sides as a mesh sidecar: original destination, SPIFFE IDs verified, access rule, rate limit."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

from bench.app import PATH_REGEX
from bench.certs import Certificates, Svid
from bench.pairs import Pair
from bench.process import Process
from bench.topology import (
    APP_PORT,
    INCOMING_PORT,
    LOCAL_ADDRESS,
    OUTGOING_PORT,
    SERVER_ADDRESSES,
    SERVICE_ADDRESS,
    SERVICE_PORT,
    Topology,
)

Config = dict[str, Any]

_BINARY = "/run/envoy"
# The fields of the sidecar's access log.
_LOG_FORMAT = (
    "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% - %DOWNSTREAM_PEER_URI_SAN% [%START_TIME%] "
    '"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %BYTES_SENT% "%REQ(USER-AGENT)%" '
    "dst=%DOWNSTREAM_LOCAL_ADDRESS% upstream=%UPSTREAM_HOST% upstream_id=%UPSTREAM_PEER_URI_SAN% time=%DURATION%\n"
)
_UNREACHED_RATE = 1_000_000_000


class EnvoyPair(Pair):
    """Two Envoy processes with one worker thread each."""

    name = "envoy"
    authorises = True

    def start(self, topology: Topology, certificates: Certificates) -> None:
        """Start both proxies."""
        client, server = self._hops(topology)
        _start(client, certificates.root, certificates.client, _client(certificates.server.spiffe_id))
        _start(server, certificates.root, certificates.server, _server(certificates.client.spiffe_id))


def _start(process: Process, root: str, svid: Svid, config: Config) -> None:
    process.write("root.pem", root)
    process.write("cert.pem", svid.certificate)
    process.write("key.pem", svid.key)
    process.write("envoy.json", json.dumps(config))
    process.write("envoy", "")  # where the binary is bound
    binary = Path(str(importlib.resources.files("envoy") / "_bin" / "envoy"))
    process.start(
        *(_BINARY, "-c", "/run/envoy.json", "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"),
        binds={binary: _BINARY},
    )


def _client(server_id: str) -> Config:
    """Outgoing: one listener takes what is redirected and hands it to the listener of the original destination."""
    service = {
        "name": "service",
        "address": _address(SERVICE_ADDRESS, SERVICE_PORT),
        "bind_to_port": False,
        "filter_chains": [{"filters": [_http("outgoing", "service", [])]}],
    }
    redirected = {
        "name": "redirected",
        "address": _address("0.0.0.0", OUTGOING_PORT),
        "use_original_dst": True,
        # A destination that no other listener knows is refused.
        "filter_chains": [{"filters": [_closed()]}],
    }
    tls = _extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context=_tls(server_id),
    )
    cluster = _cluster("service", SERVER_ADDRESSES) | {"transport_socket": tls}
    return {"static_resources": {"listeners": [redirected, service], "clusters": [cluster]}}


def _server(client_id: str) -> Config:
    """Incoming: TLS, then who may call what, then the rate limit, then the application."""
    rbac = _extension(
        "envoy.filters.http.rbac",
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        rules={
            "action": "ALLOW",
            "policies": {
                "bench": {
                    "permissions": [{"url_path": {"path": {"safe_regex": {"regex": PATH_REGEX}}}}],
                    "principals": [{"authenticated": {"principal_name": {"exact": client_id}}}],
                }
            },
        },
    )
    everything = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    limit = _extension(
        "envoy.filters.http.local_ratelimit",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        token_bucket={"max_tokens": _UNREACHED_RATE, "tokens_per_fill": _UNREACHED_RATE, "fill_interval": "1s"},
        filter_enabled=everything,
        filter_enforced=everything,
    )
    tls = _extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context=_tls(client_id),
    )
    original_destination = _extension(
        "envoy.filters.listener.original_dst", "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
    )
    listener = {
        "name": "incoming",
        "address": _address("0.0.0.0", INCOMING_PORT),
        "listener_filters": [original_destination],
        "filter_chains": [
            {
                "filter_chain_match": {"destination_port": APP_PORT},
                "transport_socket": tls,
                "filters": [_http("incoming", "app", [rbac, limit])],
            }
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster("app", (LOCAL_ADDRESS,))]}}


def _http(name: str, cluster: str, filters: list[Config]) -> Config:
    router = _extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")
    log = _extension(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path="/dev/stdout",
        log_format={"text_format_source": {"inline_string": _LOG_FORMAT}},
    )
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]
    return _extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        http_filters=[*filters, router],
        access_log=[log],
    )


def _closed() -> Config:
    return _extension(
        "envoy.filters.network.direct_response", "envoy.extensions.filters.network.direct_response.v3.Config"
    )


def _cluster(name: str, addresses: tuple[str, ...]) -> Config:
    endpoints = [{"endpoint": {"address": _address(address, APP_PORT)}} for address in addresses]
    return {
        "name": name,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _tls(peer_id: str) -> Config:
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519"],
        },
        "tls_certificates": [
            {"certificate_chain": {"filename": "/run/cert.pem"}, "private_key": {"filename": "/run/key.pem"}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": "/run/root.pem"},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer_id}}],
        },
    }


def _address(address: str, port: int) -> Config:
    return {"socket_address": {"address": address, "port_value": port}}


def _extension(name: str, message: str, **fields: Any) -> Config:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{message}", **fields}}
