from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.cli.control_plane import ControlPlane
from nginx_mesh.cli.errors import ApiError
from nginx_mesh.cli.identity import view
from nginx_mesh.cli.identity.options import IdentitySource
from nginx_mesh.cli.main import run
from nginx_mesh.cli.unix_http import UnixHttpClient

from .unixserver import HttpServer, Refused

Fetch = Callable[[dict[str, Any]], dict[str, Any]]

NOW = 1_800_000_000.0
HOUR = 3600


def authority(**changes: Any) -> dict[str, Any]:
    ca = {
        "state": "signing",
        "id": "aa11bb22cc33",
        "key_type": "ec-p256",
        "issuer": "self",
        "issuer_id": "aa11bb22cc33",
        "not_after": NOW + 720 * HOUR,
        "activate_at": NOW - 1,
        "prepare_next_at": NOW + 360 * HOUR,
    }
    return {
        "trust_domain": "example.org",
        "server_id": "vm",
        "svid_ttl": HOUR,
        "ca_ttl": 720 * HOUR,
        "ca_key_type": "ec-p256",
        "problem": "",
        "upstream": "self-signed",
        "key_manager": "memory key manager",
        "datastore": "in memory",
        "authorities": [ca],
        "retired": [],
        **changes,
    }


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "spiffe_id": f"spiffe://example.org/ns/shop/sa/{name}",
        "agent": "spiffe://example.org/nginx-mesh/agent/vm-1",
        "dns_names": [],
        "svid": {"serial": "1f", "issuer": "aa11bb22cc33", "not_after": NOW + 600},
        **changes,
    }


def pod(uid: str, **changes: Any) -> dict[str, Any]:
    return {
        "namespace": "shop",
        "pod": f"{uid}-0",
        "uid": uid,
        "spiffe_id": f"spiffe://example.org/ns/shop/sa/{uid}",
        "dns_names": ["web.shop", "web.shop.svc"],
        "serial": "2f",
        "issuer": "aa11bb22cc33",
        "not_before": NOW - 60,
        "not_after": NOW + 1800,
        "renew_at": NOW + 900,
        "bundle": ["aa11bb22cc33"],
        **changes,
    }


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Fetches from a server with these answers, which is a mesh's control plane when it tells of a provider."""

    def from_server(answers: dict[str, Any]) -> dict[str, Any]:
        server = HttpServer({f"GET {path}": answer for path, answer in answers.items()})
        with server.listening(tmp_path / "s"):
            control_plane = ControlPlane(UnixHttpClient(tmp_path / "s"))
            mesh = control_plane if "/mesh/identity" in answers else None
            return view.fetch(IdentitySource(control_plane.identity_authority, mesh))

    return from_server


EMBEDDED = {"provider": "embedded", "address": "", "trust_domain": "example.org"}
BUNDLE = {
    "own": True,
    "trust_domain": "example.org",
    "pem": "-----BEGIN CERTIFICATE-----\n",
    "document": '{"keys": []}',
}
ELSEWHERE = {"provider": "server", "address": "identity:8081", "trust_domain": "example.org"}


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the table whose header begins with a title."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    ends = [number for number, line in enumerate(lines) if not line and number > start]
    body = lines[start + 1 : ends[0] if ends else None]
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in body]


def test_a_mesh_with_its_own_authority_shows_pods_with_what_their_agent_holds(fetch: Fetch) -> None:
    registered = [entry("web"), entry("job-outside")]
    found = fetch(
        {
            "/identity": {**authority(), "entries": registered},
            "/mesh/identity": EMBEDDED,
            "/mesh/identities": [pod("web"), pod("new", serial="", issuer="", not_after=0.0, renew_at=0.0)],
        }
    )
    text = view.text(found, NOW)
    assert rows(text, "NAMESPACE") == [
        ["shop", "new-0", "spiffe://example.org/ns/shop/sa/new", "<pending>", "-", "web.shop + 1 more..."],
        ["shop", "web-0", "spiffe://example.org/ns/shop/sa/web", "aa11bb22", "30m", "web.shop + 1 more..."],
        ["<none>", "job-outside", "spiffe://example.org/ns/shop/sa/job-outside", "aa11bb22", "10m", "<none>"],
    ]
    assert rows(text, "CA ") == [["aa11bb22", "signing", "ec-p256", "self", "30d", "successor made in 15d"]]
    assert "Key manager:  memory\n" in text


def test_wide_shows_whole_ids_serials_renewal_and_agents(fetch: Fetch) -> None:
    answers = {
        "/identity": {**authority(), "entries": [entry("web")]},
        "/mesh/identity": EMBEDDED,
        "/mesh/identities": [pod("web")],
    }
    (cells,) = rows(view.text(fetch(answers), NOW, wide=True), "NAMESPACE")
    assert cells[3:] == [
        "aa11bb22cc33",
        "30m",
        "web.shop,web.shop.svc",
        "2f",
        "15m",
        "spiffe://example.org/nginx-mesh/agent/vm-1",
    ]


def test_a_server_of_its_own_shows_entries(fetch: Fetch) -> None:
    text = view.text(fetch({"/identity": {**authority(), "entries": [entry("web", svid=None)]}}), NOW)
    assert rows(text, "ENTRY") == [["web", "spiffe://example.org/ns/shop/sa/web", "<unknown>", "-", "<none>"]]


def test_an_upstream_that_fails_is_the_first_thing_shown(fetch: Fetch) -> None:
    down = {**authority(problem="upstream authority disk: no key"), "entries": []}
    first = view.text(fetch({"/identity": down}), NOW).splitlines()[0]
    assert first.split(maxsplit=1) == ["Problem:", "the next CA is delayed: upstream authority disk: no key"]


def test_a_mesh_whose_authority_is_elsewhere_says_where_and_shows_what_its_agent_holds(fetch: Fetch) -> None:
    text = view.text(fetch({"/mesh/identity": ELSEWHERE, "/mesh/identities": [pod("web")]}), NOW)
    assert "Authority:    identity:8081\n" in text
    assert rows(text, "NAMESPACE")[0][1] == "web-0"
    assert "KEY TYPE" not in text


def test_an_error_of_the_mesh_is_not_taken_for_a_mesh_without_identities(fetch: Fetch) -> None:
    with pytest.raises(ApiError, match="no such table"):
        fetch({"/identity": {**authority(), "entries": []}, "/mesh/identity": Refused(500, b"no such table")})


def test_a_prepared_ca_and_retired_ones_are_shown_with_what_comes_next(fetch: Fetch) -> None:
    (first,) = authority()["authorities"]
    second = {**first, "state": "prepared", "id": "dd44ee55", "activate_at": NOW + 30}
    found = fetch(
        {
            "/identity": {
                **authority(authorities=[first, second], retired=[{"id": "ffff0000", "until": NOW + 60}]),
                "entries": [],
            }
        }
    )
    text = view.text(found, NOW)
    steps = [(cells[0], cells[1], cells[-1]) for cells in rows(text, "CA ")]
    assert steps == [
        ("aa11bb22", "signing", "hands over"),
        ("dd44ee55", "prepared", "signs in 30s"),
        ("ffff0000", "retired", "its SVIDs are replaced"),
    ]
    assert "No workloads are registered." in text


def test_agents_say_whether_they_are_banned_or_their_svid_is_over() -> None:
    node = {
        "spiffe_id": "spiffe://example.org/nginx-mesh/agent/vm-1",
        "attestation": "join_token",
        "not_after": NOW + 60,
        "registrar": True,
        "banned": False,
    }
    table = view.agents([node, {**node, "banned": True}, {**node, "not_after": NOW - 1}], NOW)
    assert table[1] == ("vm-1", "join_token", "yes", "60s", "Attested")
    assert [row[-1] for row in table[2:]] == ["Banned", "Expired"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--socket", "/nonexistent/s"], "no identity server answers at /nonexistent/s (No such file"),
        (["token", "create", "vm", "--socket", "/nonexistent/s"], "start it with `nginx-mesh-identity --config FILE`"),
    ],
)
def test_a_socket_that_is_not_there_is_said_with_what_to_do(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["identity", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "--socket", "/nonexistent/s", "--mesh", "other"],
        ["mint", "x509", "spiffe://example.org/x", "--socket", "/nonexistent/s"],
        ["mint", "jwt", "spiffe://example.org/x", "--socket", "/nonexistent/s"],
        ["rotate-ca", "--overlap", "soon", "--socket", "/nonexistent/s"],
        ["federation", "create", "other.example", "--endpoint", "https://a/", "--profile", "ftp"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["identity", *arguments]) == 2
    assert "\nerror: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "request_", "answer", "shown"),
    [
        (["bundle"], ("GET", "/bundles", None), [BUNDLE], "-----BEGIN CERTIFICATE-----\n"),
        (["bundle", "--format", "spiffe"], ("GET", "/bundles", None), [BUNDLE], '{"keys": []}\n'),
        (
            ["mint", "jwt", "spiffe://example.org/x", "--audience", "a", "--audience", "b", "--ttl", "5m"],
            ("POST", "/mint-jwt", {"spiffe_id": "spiffe://example.org/x", "audience": ["a", "b"], "ttl": 300}),
            {"token": "a.b.c"},
            "a.b.c\n",
        ),
        (
            ["rotate-ca", "--overlap", "5s"],
            ("POST", "/rotate", {"overlap": 5}),
            {"id": "aa11bb22cc33", "activate_at": 0.0},
            "CA aa11bb22 is prepared; it signs in 0s\n",
        ),
        (
            ["token", "create", "vm-1", "--registrar", "--ttl", "1h"],
            ("POST", "/tokens", {"name": "vm-1", "ttl": 3600, "registrar": True}),
            {"token": "secret", "agent": "spiffe://example.org/nginx-mesh/agent/vm-1"},
            "secret\n",
        ),
        (["agent", "ban", "vm/1"], ("PATCH", "/agents/vm%2F1", {"banned": True}), None, 'agent "vm/1" banned\n'),
        (["agent", "unban", "vm"], ("PATCH", "/agents/vm", {"banned": False}), None, 'agent "vm" readmitted\n'),
        (["agent", "evict", "vm"], ("DELETE", "/agents/vm", None), None, 'agent "vm" evicted\n'),
        (["agent", "list", "-o", "json"], ("GET", "/agents", None), [], "[]\n"),
        (["federation", "list", "-o", "yaml"], ("GET", "/federation", None), [], "[]\n"),
        (
            ["federation", "create", "b.example", "--endpoint", "https://b.example/", "--profile", "https_web"],
            (
                "PUT",
                "/federation/b.example",
                {
                    "endpoint_url": "https://b.example/",
                    "profile": "https_web",
                    "endpoint_spiffe_id": "",
                    "bundle": "",
                },
            ),
            None,
            'federation with "b.example" configured\n',
        ),
        (
            ["federation", "delete", "b.example"],
            ("DELETE", "/federation/b.example", None),
            None,
            'federation with "b.example" deleted\n',
        ),
    ],
)
def test_every_command_asks_the_authority_for_one_thing(
    arguments: list[str],
    request_: tuple[str, str, Any],
    answer: Any,
    shown: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    method, path, body = request_
    with HttpServer({f"{method} /identity{path}": answer}).listening(tmp_path / "s") as server:
        assert run(["identity", *arguments, "--socket", str(tmp_path / "s")]) == 0
    assert server.requests == [(method, f"/identity{path}", body)]
    assert capsys.readouterr().out == shown


def test_a_refusal_of_the_authority_is_the_error_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = Refused(404, b'{"message": "there is no agent vm"}')
    with HttpServer({"DELETE /identity/agents/vm": refusal}).listening(tmp_path / "s"):
        assert run(["identity", "agent", "evict", "vm", "--socket", str(tmp_path / "s")]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: there is no agent vm\n")


def test_a_minted_svid_is_written_with_a_key_that_only_its_owner_may_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"chain": "chain", "bundle": "roots", "not_after": NOW}
    command = ["identity", "mint", "x509", "spiffe://example.org/x", "--dns", "x.example", "--write", str(tmp_path)]
    command += ["--socket", str(tmp_path / "s")]
    with HttpServer({"POST /identity/mint": answer}).listening(tmp_path / "s") as server:
        assert run(command) == 0
        assert run(command) == 1
    ((_, _, asked),) = server.requests
    assert (asked["spiffe_id"], asked["dns_names"], asked["ttl"]) == ("spiffe://example.org/x", ["x.example"], 0)
    assert (tmp_path / "svid.pem").read_text() == "chain"
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    captured = capsys.readouterr()
    assert "PRIVATE KEY" in (tmp_path / "key.pem").read_text()
    assert "use --force to overwrite" in captured.err
