"""How the status of a mesh reads."""

from __future__ import annotations

from typing import Any

from nginx_mesh.cli.status import text

NOW = 1_700_000_000.0


def document(**changes: Any) -> dict[str, Any]:
    item = {"namespace": "shop", "pod": "web-0", "state": "synced", "version": 17, "not_after": NOW + 1800}
    found: dict[str, Any] = {
        "well": True,
        "mesh": "local",
        "daemon": {"version": "0.1.0", "pid": 42, "since": NOW - 300, "unready": {}},
        "identity": {
            "provider": "embedded",
            "address": "",
            "trust_domain": "example.org",
            "authorities": [{"state": "signing", "id": "0123456789abcdef", "not_after": NOW + 10 * 86400}],
        },
        "pods": {"ready": 3, "pods": 4},
        "sidecars": {
            "total": 2,
            "states": {"synced": 1, "pending": 0, "starting": 1},
            "state_version": 17,
            "first_expiry": NOW + 1800,
            "items": [
                {**item, "spiffe_id": "spiffe://x"},
                {**item, "pod": "web-1", "version": None, "not_after": None, "spiffe_id": None},
            ],
        },
        "policies": {"in_force": 1, "total": 2},
        "problems": [],
        "warnings": [],
    }
    return {**found, **changes}


def test_a_mesh_that_is_well_is_told_in_a_few_lines() -> None:
    assert text(document(), NOW).splitlines() == [
        'mesh "local" is well',
        "",
        "daemon     v0.1.0, pid 42, for 5m",
        "identity   embedded, trust domain example.org, CA 01234567 for 10d",
        "pods       3 of 4 ready",
        "sidecars   1 of 2 in sync, 1 starting, state 17, certificates for 30m or more",
        "policies   1 of 2 in force",
    ]


def test_problems_come_before_warnings_and_long_lists_are_cut() -> None:
    findings = [{"about": f"pod/{number}", "message": "is gone"} for number in range(23)]
    found = text(document(well=False, problems=findings[:1], warnings=findings), NOW)
    assert found.startswith('mesh "local" is not well: 1 problem\n')
    assert found.index("Problems:\n  pod/0: is gone") < found.index("Warnings:")
    assert "… and 3 more: see `nginx-meshctl status -o json`" in found


def test_a_daemon_that_is_away_leaves_only_that_to_tell() -> None:
    lost = {"well": False, "mesh": "m", "problems": [{"about": "daemon", "message": "does not run"}], "warnings": []}
    assert text(lost, NOW) == 'mesh "m" is not well: 1 problem\n\nProblems:\n  daemon: does not run'


def test_wide_shows_every_sidecar() -> None:
    assert text(document(), NOW, wide=True).splitlines()[-2:] == [
        "shop        web-0   synced   17        30m          spiffe://x",
        "shop        web-1   synced   -         -            -",
    ]
