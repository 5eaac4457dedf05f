"""What every plain nginx of the benchmark (application, plain pair) has in common."""

from __future__ import annotations

BINARY = "/usr/sbin/nginx"
CONFIGURATION = "/run/nginx.conf"

_MAIN = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid /run/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    keepalive_requests 1000000000;
    client_body_temp_path /run/body;
    proxy_temp_path /run/proxy;
    fastcgi_temp_path /run/fastcgi;
    uwsgi_temp_path /run/uwsgi;
    scgi_temp_path /run/scgi;
    {http}
}}
"""


def configuration(http: str) -> str:
    """A whole nginx.conf around the contents of its http block: one worker, all it writes in /run."""
    return _MAIN.format(http=http)


def command() -> tuple[str, ...]:
    """How to run it."""
    return (BINARY, "-e", "stderr", "-c", CONFIGURATION)
