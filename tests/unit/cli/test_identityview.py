from __future__ import annotations

from typing import Any

import pytest
from nginx_mesh.cli.client import ApiError

from nginx_mesh.cli import identityview
from nginx_mesh.cli.main import run

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


class Answers:
    """A client whose answers are known; what is not there has the error of an identity server or of a daemon."""

    def __init__(self, answers: dict[str, Any], reason: str = "") -> None:
        self.answers = answers
        self.reason = reason

    def get(self, path: str) -> Any:
        if path not in self.answers:
            raise ApiError("not found", self.reason, [])
        return self.answers[path]


def fetch(answers: dict[str, Any], reason: str = "") -> dict[str, Any]:
    return identityview.fetch(Answers(answers, reason))  # type: ignore[arg-type]


EMBEDDED = {"provider": "embedded", "address": "", "trust_domain": "example.org"}
ELSEWHERE = {"provider": "server", "address": "identity:8081", "trust_domain": "example.org"}


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the table whose header begins with a title."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    ends = [number for number, line in enumerate(lines) if not line and number > start]
    body = lines[start + 1 : ends[0] if ends else None]
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in body]


def test_a_mesh_with_its_own_authority_shows_pods_with_what_their_agent_holds() -> None:
    registered = [entry("web"), entry("job-outside")]
    found = fetch(
        {
            "/identity": {**authority(), "entries": registered},
            "/mesh/identity": EMBEDDED,
            "/mesh/identities": [pod("web"), pod("new", serial="", issuer="", not_after=0.0, renew_at=0.0)],
        }
    )
    text = identityview.text(found, NOW)
    assert rows(text, "NAMESPACE") == [
        ["shop", "new-0", "spiffe://example.org/ns/shop/sa/new", "<pending>", "-", "web.shop + 1 more..."],
        ["shop", "web-0", "spiffe://example.org/ns/shop/sa/web", "aa11bb22", "30m", "web.shop + 1 more..."],
        ["<none>", "job-outside", "spiffe://example.org/ns/shop/sa/job-outside", "aa11bb22", "10m", "<none>"],
    ]
    assert rows(text, "CA ") == [["aa11bb22", "signing", "ec-p256", "self", "30d", "successor made in 15d"]]
    assert "Key manager:  memory\n" in text


def test_wide_shows_whole_ids_serials_renewal_and_agents() -> None:
    answers = {
        "/identity": {**authority(), "entries": [entry("web")]},
        "/mesh/identity": EMBEDDED,
        "/mesh/identities": [pod("web")],
    }
    (cells,) = rows(identityview.text(fetch(answers), NOW, wide=True), "NAMESPACE")
    assert cells[3:] == [
        "aa11bb22cc33",
        "30m",
        "web.shop,web.shop.svc",
        "2f",
        "15m",
        "spiffe://example.org/nginx-mesh/agent/vm-1",
    ]


def test_a_server_of_its_own_shows_entries() -> None:
    text = identityview.text(fetch({"/identity": {**authority(), "entries": [entry("web", svid=None)]}}), NOW)
    assert rows(text, "ENTRY") == [["web", "spiffe://example.org/ns/shop/sa/web", "<unknown>", "-", "<none>"]]


def test_an_upstream_that_fails_is_the_first_thing_shown() -> None:
    down = {**authority(problem="upstream authority disk: no key"), "entries": []}
    first = identityview.text(fetch({"/identity": down}), NOW).splitlines()[0]
    assert first.split(maxsplit=1) == ["Problem:", "the next CA is delayed: upstream authority disk: no key"]


def test_a_mesh_whose_authority_is_elsewhere_says_where_and_shows_what_its_agent_holds() -> None:
    text = identityview.text(fetch({"/mesh/identity": ELSEWHERE, "/mesh/identities": [pod("web")]}), NOW)
    assert "Authority:    identity:8081\n" in text
    assert rows(text, "NAMESPACE")[0][1] == "web-0"
    assert "KEY TYPE" not in text


def test_an_error_of_the_mesh_is_not_taken_for_an_identity_server() -> None:
    with pytest.raises(ApiError):
        fetch({}, reason="InternalError")


def test_a_prepared_ca_and_retired_ones_are_shown_with_what_comes_next() -> None:
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
    text = identityview.text(found, NOW)
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
    table = identityview.agents([node, {**node, "banned": True}, {**node, "not_after": NOW - 1}], NOW)
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
