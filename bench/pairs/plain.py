"""Plain nginx on both sides: mutual TLS, an access log and nothing else. The practical limit of an nginx pair."""

from __future__ import annotations

from bench import nginx
from bench.certs import Certificates, Svid
from bench.pairs import Pair
from bench.process import Process
from bench.topology import APP_PORT, INCOMING_PORT, LOCAL_ADDRESS, OUTGOING_PORT, SERVER_ADDRESSES, Topology

# As the sidecar, which always writes an access log: the same fields, as far as stock nginx has them, and buffering.
_COMMON = """
    log_format bench '$remote_addr - $ssl_client_s_dn [$time_local] "$request" $status $body_bytes_sent '
                     '"$http_user_agent" dst=$server_addr upstream=$upstream_addr time=$request_time';
    access_log /dev/stdout bench buffer=16k flush=1s;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_buffers 16 16k;
    proxy_max_temp_file_size 0;
"""

# More idle connections than the most concurrent cell can hold, so that none is closed and opened again.
_CLIENT = """
    {common}
    upstream service {{
        {servers}
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {port};
        location / {{
            proxy_pass https://service;
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_conf_command Groups X25519;
            proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
            proxy_ssl_certificate /run/cert.pem;
            proxy_ssl_certificate_key /run/key.pem;
            proxy_ssl_trusted_certificate /run/root.pem;
            proxy_ssl_verify on;
            proxy_ssl_name {server_name};
        }}
    }}
"""

_SERVER = """
    {common}
    upstream app {{
        server {address}:{app_port};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {port} ssl;
        ssl_protocols TLSv1.3;
        ssl_ecdh_curve X25519;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        ssl_certificate /run/cert.pem;
        ssl_certificate_key /run/key.pem;
        ssl_client_certificate /run/root.pem;
        ssl_verify_client on;
        location / {{ proxy_pass http://app; }}
    }}
"""


class PlainPair(Pair):
    """Two stock nginx processes, one worker each. Both verify the chain, the client also the server's DNS name."""

    name = "plain"
    authorises = False

    def start(self, topology: Topology, certificates: Certificates) -> None:
        """Start both proxies."""
        client, server = self._hops(topology)
        servers = "\n".join(f"server {address}:{APP_PORT};" for address in SERVER_ADDRESSES)
        _start(
            client,
            certificates.root,
            certificates.client,
            _CLIENT.format(
                common=_COMMON, servers=servers, port=OUTGOING_PORT, server_name=certificates.server.dns_name
            ),
        )
        _start(
            server,
            certificates.root,
            certificates.server,
            _SERVER.format(common=_COMMON, address=LOCAL_ADDRESS, app_port=APP_PORT, port=INCOMING_PORT),
        )


def _start(process: Process, root: str, svid: Svid, http: str) -> None:
    process.write("root.pem", root)
    process.write("cert.pem", svid.certificate)
    process.write("key.pem", svid.key)
    process.write("nginx.conf", nginx.configuration(http))
    process.start(*nginx.command())
