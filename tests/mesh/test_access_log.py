"""The access log has every request and connection, in lines that its readers can rely on, whoever wrote the request."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from nginx_mesh.api.values import LogLevel
from nginx_mesh.protocol.state import Inbound, Limit

from .world import Pod, Service, World

pytestmark = pytest.mark.mesh

DOCUMENT = (Path(__file__).parents[2] / "docs/reference/access-log.md").read_text()
ROWS = re.findall(r"^\| (`[a-z_`, ]+`) \|[^|]*\| (HTTP(?:, TCP)?) \|", DOCUMENT, re.MULTILINE)
FIELDS = {
    kind: {name for names, of in ROWS if kind in of for name in re.findall(r"[a-z_]+", names)}
    for kind in ("HTTP", "TCP")
}
PATTERNS = re.findall(r"^```regex\n(.*?)\n```$", DOCUMENT, re.MULTILINE | re.DOTALL)
ERROR = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\w+)\] ")
LEVELS: tuple[str, ...] = get_args(LogLevel)

# Sends requests as they are, a connection each, and prints the first line of each answer.
RAW = """
import base64, json, socket, sys
host, port, requests = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
for request in requests:
    with socket.create_connection((host, port), 5) as peer:
        peer.settimeout(2)
        peer.sendall(base64.b64decode(request))
        try:
            print(peer.recv(4096).split(b"\\r\\n")[0].decode(errors="replace"))
        except OSError as error:
            print(error)
"""


def request(path: bytes = b"/echo", *headers: bytes, version: bytes = b"1.1", host: bytes = b"web") -> bytes:
    lines = [b"GET " + path + b" HTTP/" + version, b"Host: " + host, b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"", b""])


HOSTILE = {
    "quotes and backslashes": request(b"/echo?\"\\'{}[]", b'User-Agent: a"b\\c",{"x":"y"}'),
    "no UTF-8": request(b"/echo?\xff\xfe\xc0\xaf\xed\xa0\x80", b"User-Agent: \x80\xf5 torn \xe2\x82", host=b"w\xffb"),
    "UTF-8": request("/echo?é漢🦊".encode(), "User-Agent: é漢🦊\u2028".encode()),
    "control characters": request(b"/echo", b"User-Agent: a\x01\x1b[31m\x7f\tb"),
    "control characters in the path": request(b"/ec\x01ho\x7f"),
    "a log line in a header": request(b"/echo", b'User-Agent: x" dst=1 policy=a/b upstream=1.1.1.1:1 time=9'),
    "encoded": request(b"/echo?%00%0a%22%5c"),
    "an old version": request(version=b"1.0"),
    "no host": b"GET /echo HTTP/1.0\r\n\r\n",
    "an odd version": request(version=b"1.9"),
    "no request": b"\x00\x01garbage \"'\\ \xff\r\n\r\n",
    "a long path": request(b"/" + b"a" * 40_000),
    "a long header": request(b"/echo", b"User-Agent: " + b"b" * 20_000),
}


class Mesh(NamedTuple):
    world: World
    client: Pod
    server: Pod
    web: Service

    def traffic(self) -> None:
        """Requests and connections of every kind, to every end."""
        document = json.dumps([base64.b64encode(each).decode() for each in HOSTILE.values()])
        answers = self.client.output(sys.executable, "-c", RAW, self.web.vip, "80", document)
        assert answers.count("HTTP/1.1 200") + answers.count("HTTP/1.0 200") >= 7, answers
        assert answers.count(" 400 ") + answers.count(" 414 ") >= 3, answers
        # Past the client's sidecar: the other one is called in plaintext by somebody it does not know.
        self.world.pods[-1].output(sys.executable, "-c", RAW, self.server.address, "8080", document)
        hostile = ('User-Agent: "\\\u00e9\u2028', "x-odd: \x7f")
        answer = self.client.call("h2_client", f'http://{self.web.vip}/echo?"\\é', f"--header={hostile[0]}")
        assert "answers" in answer, answer
        assert self.client.get(f"http://{self.web.vip}:81/denied")["status"] == 403
        assert {self.client.get(f"http://{self.web.vip}:82/echo")["status"] for _ in range(4)} == {200, 503}
        assert "error" not in self.client.call("grpc_client", "unary", f"{self.web.vip}:50051")
        assert "error" not in self.client.call("tcp_client", "greeting", self.web.vip, "9000")
        assert "error" in self.client.call("tcp_client", "greeting", self.web.vip, "9001", "--timeout", "3")
        assert self.client.get(f"http://{self.web.vip}:83/nobody")["status"] == 502


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    ports: dict[int, Any] = {
        8080: "http",
        8081: "http",
        8082: "http",
        8083: "http",
        9000: "tcp",
        9001: "tcp",
        50051: "grpc",
    }
    with World() as world:
        server, client = world.pod("server", ports), world.pod("client")
        dialled = {80: 8080, 81: 8081, 82: 8082, 83: 8083, 9000: 9000, 9001: 9001, 50051: 50051}
        web = world.service("web", {port: (target, ports[target]) for port, target in dialled.items()}, [server])
        world.pod("outsider", meshed=False)
        server.inbound[8081] = Inbound(protocols=["http"], grants=[])
        server.inbound[8082] = Inbound(protocols=["http"], limits=[Limit(name="test/one", rate=1000)])
        server.inbound[9001] = Inbound(protocols=["tcp"], grants=[])
        world.push()
        for port in (8080, 8082):
            server.serve("http_server", "--port", str(port))
        server.serve("tcp_server", "--mode", "greeting", "--port", "9000")
        server.serve("grpc_server")
        yield Mesh(world, client, server, web)


def lines_after(mesh: Mesh, log_format: str) -> dict[str, list[bytes]]:
    """What traffic of every kind wrote to the access log of each sidecar in a format."""
    for pod in (mesh.client, mesh.server):
        pod.log_format = log_format
    mesh.world.push()
    time.sleep(1.2)  # what was buffered before
    before = {pod.name: len(pod.log_path.read_bytes()) for pod in (mesh.client, mesh.server)}
    mesh.traffic()
    time.sleep(1.5)
    found = {}
    for pod in (mesh.client, mesh.server):
        written = pod.log_path.read_bytes()[before[pod.name] :]
        assert written.endswith(b"\n")
        found[pod.name] = [line for line in written[:-1].split(b"\n") if not ERROR.match(line)]
        assert len(found[pod.name]) > 20
    return found


def test_every_line_of_json_parses_and_has_exactly_the_documented_fields(mesh: Mesh) -> None:
    assert len(FIELDS["HTTP"]) == 19 and len(FIELDS["TCP"]) == 13, "the document's table is as this test reads it"
    entries = {name: [json.loads(line) for line in lines] for name, lines in lines_after(mesh, "json").items()}
    for entry in (*entries["client"], *entries["server"]):
        assert set(entry) == FIELDS["TCP" if entry["protocol"] == "tcp" else "HTTP"]
        assert all(isinstance(value, str) for value in entry.values())
        assert re.fullmatch(r"\d{3}", entry["status"])
        assert re.fullmatch(r"[\d.]+", entry["time_total"])
    for entry in entries.values():
        assert {each["protocol"] for each in entry} >= {"HTTP/1.1", "HTTP/2.0", "tcp"}
    client, server = entries["client"], entries["server"]
    assert {"200", "400", "403", "502", "503"} <= {each["status"] for each in client}
    agents = {each.get("user_agent", "") for each in (*client, *server)}
    assert {'a"b\\c",{"x":"y"}', "é漢🦊\u2028", "\ufffd\ufffd torn \ufffd\ufffd", "a\x01\x1b[31m\x7f\tb"} <= agents
    paths = {each.get("path", "") for each in (*client, *server)}
    assert {"/echo?\"\\'{}[]", "/echo?é漢🦊", "/echo?" + 7 * "\ufffd"} <= paths
    assert "w\ufffdb" in {each.get("authority") for each in server}
    assert {each["status"] for each in server if each["protocol"] == "tcp"} == {"200", "403"}
    proved = {each["client_id"] for each in server}
    assert proved == {"", "spiffe://example.org/ns/test/sa/client"}


def test_every_line_of_default_fits_the_documented_expressions(mesh: Mesh) -> None:
    http, tcp = (re.compile(pattern) for pattern in PATTERNS)
    for name, lines in lines_after(mesh, "default").items():
        found = [(tcp.fullmatch(line.decode("ascii")) or http.fullmatch(line.decode("ascii")), line) for line in lines]
        assert [line for fits, line in found if not fits] == []
        entries = [fits.groupdict() for fits, _ in found if fits]
        assert {"\\xC3\\xA9\\xE6\\xBC\\xA2\\xF0\\x9F\\xA6\\x8A\\xE2\\x80\\xA8"} <= {
            each.get("user_agent") for each in entries
        }
        assert all(each["destination"].startswith((mesh.web.vip, mesh.server.address)) for each in entries), name
        planted = [each for each in entries if "policy=a/b" in (each.get("user_agent") or "")]
        assert planted and all(each["policy"] == "-" for each in planted)


def levels_written(mesh: Mesh) -> set[str]:
    """Levels of what is written of a request that passes, one that nobody takes, and a refused connection."""
    pods = (mesh.client, mesh.server)
    before = [len(pod.log_path.read_bytes()) for pod in pods]
    assert mesh.client.get(f"http://{mesh.web.vip}/echo")["status"] == 200
    assert mesh.client.get(f"http://{mesh.web.vip}:83/nobody")["status"] == 502
    assert "error" in mesh.client.call("tcp_client", "greeting", mesh.web.vip, "9001", "--timeout", "3")
    time.sleep(0.3)
    lines = [
        line for pod, size in zip(pods, before, strict=True) for line in pod.log_path.read_bytes()[size:].split(b"\n")
    ]
    return {found[1].decode() for line in lines if (found := ERROR.match(line))}


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_of_the_error_log_is_set_live_and_nothing_below_it_is_written(mesh: Mesh, level: str) -> None:
    workers = [pod.workers for pod in (mesh.client, mesh.server)]
    for pod in (mesh.client, mesh.server):
        pod.log_level = level
    mesh.world.push()
    # Of these there is something to say each time: a connection that ends, one that is refused, one that nobody takes.
    said = {"debug", "info", "warn", "error"}
    assert levels_written(mesh) & said == said & set(LEVELS[LEVELS.index(level) :])
    assert [pod.workers for pod in (mesh.client, mesh.server)] == workers, "nothing was reloaded"
