"""Reading what wrk, the kernel and the process table say, and writing what the pairs are given."""

from __future__ import annotations

import datetime
import os
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given
from hypothesis import strategies as st

from bench import certs, load, objects, usage
from bench.app import DENIED_PATH, path
from bench.pairs import mesh
from bench.process import Process, descendants, parents
from nginx_mesh.protocol.state import Update

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)

WRK_OUTPUT = """Running 2s test @ http://10.96.0.10:80/bench/1k
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.51ms  603.17us  12.02ms   93.98%
Requests/sec:  20389.12
{"requests": 40816, "duration_us": 2001831, "bytes": 23997885, "p50_us": 1489, "p90_us": 2139, "p99_us": 4824, "errors": 3}
"""  # noqa: E501

ROLLUP = """55d0c0000000-7ffd00000000 ---p 00000000 00:00 0                          [rollup]
Rss:               14520 kB
Pss:                9876 kB
Pss_Dirty:          4020 kB
Pss_Anon:           4010 kB
"""


def test_the_result_is_the_last_line_of_what_wrk_writes() -> None:
    found = load.parse(WRK_OUTPUT)
    assert (found.requests, found.p50_us, found.p99_us, found.errors) == (40816, 1489, 4824, 3)
    assert found.per_second == pytest.approx(20389.3, abs=0.1)


@pytest.mark.parametrize("output", ["", "unable to connect to 10.96.0.10:80", '{"requests": 1}'])
def test_output_without_a_result_is_an_error_not_a_zero(output: str) -> None:
    with pytest.raises(ValueError):
        load.parse(output)


def test_pss_is_the_whole_not_one_of_its_parts() -> None:
    assert usage.parse_pss(ROLLUP) == 9876


def test_a_rollup_without_pss_is_an_error() -> None:
    with pytest.raises(ValueError, match="no Pss"):
        usage.parse_pss("Rss: 1 kB\nPss_Dirty: 1 kB\n")


def test_cpu_time_of_a_process_is_what_it_says_itself() -> None:
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert usage.cpu_ns([os.getpid()]) == pytest.approx(time.process_time_ns(), abs=5_000_000)


def test_cpu_time_of_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError):
        usage.cpu_ns([2**22 - 1])


def test_memory_of_this_process_is_read() -> None:
    assert usage.pss_kib([os.getpid()]) > 1000


def test_every_process_has_its_parent() -> None:
    assert parents()[os.getpid()] == os.getppid()


@given(st.dictionaries(st.integers(2, 30), st.integers(1, 30), max_size=30))
def test_descendants_are_all_below_and_nothing_else(raw: dict[int, int]) -> None:
    tree = {pid: parent for pid, parent in raw.items() if parent < pid}
    found = descendants(1, tree)
    assert found[0] == 1

    def below(pid: int) -> bool:
        while pid in tree:
            pid = tree[pid]
        return pid == 1

    assert sorted(found) == sorted({1} | {pid for pid in tree if below(pid)})


def test_a_key_is_readable_by_its_process_only(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files are given to another user: needs root")
    process = Process(tmp_path, "unused", tmp_path / "hop", [0])
    process.write("key.pem", "secret")
    for private in (process.directory, process.directory / "key.pem"):
        assert private.stat().st_mode & 0o077 == 0
        assert private.stat().st_uid == 2102


def test_svids_verify_against_the_root_and_carry_the_spiffe_id() -> None:
    issued = certs.issue(NOW)
    root = x509.load_pem_x509_certificate(issued.root.encode())
    verifier = PolicyBuilder().store(Store([root])).time(NOW).build_client_verifier()
    for svid in (issued.client, issued.server):
        leaf = x509.load_pem_x509_certificate(svid.certificate.encode())
        verified = verifier.verify(leaf, [])
        assert x509.UniformResourceIdentifier(svid.spiffe_id) in (verified.subjects or [])
        assert "PRIVATE" not in repr(svid)


def states(features: mesh.Features) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the calling and the called sidecar get."""
    found = objects.states(mesh.objects(features), certs.issue(NOW))
    client, server = (msgspec.json.decode(msgspec.json.encode(Update(base=None, version=1, set_=s))) for s in found)
    return client["set"], server["set"]


def test_policies_of_every_kind_concern_the_request_that_is_measured() -> None:
    client, server = states(mesh.Features())
    dialled = client["destination/10.96.0.10:80"]["cluster"]
    split = client[f"split/{dialled}"]
    assert re.search(split["matches"][0]["path_regex"], path("1k"))
    assert client[f"breaker/{dialled}"]["fallback"] == ""
    clusters = [client[f"cluster/{backend['cluster']}"] for backend in split["backends"]]
    assert [(c["lb_method"], len(c["endpoints"])) for c in clusters] == [("least_time", 2), ("least_time", 1)]
    identity = server["identity"]["spiffe_id"]
    assert all(e["tls"] and e["spiffe_id"] == identity for c in clusters for e in c["endpoints"].values())
    inbound = server["inbound/8080"]
    (grant,) = inbound["grants"]
    assert grant["sources"] == [client["identity"]["spiffe_id"]]
    assert re.search(grant["matches"][0]["path_regex"], path("64k"))
    assert not re.search(grant["matches"][0]["path_regex"], DENIED_PATH)
    assert len(inbound["limits"]) == 1


def test_the_breakdown_takes_features_away_one_by_one() -> None:
    client, server = states(mesh.Features(routing=False, limit=False, rules=False, least_time=False))
    assert server["inbound/8080"].get("grants") is None
    assert server["inbound/8080"].get("limits", []) == []
    cluster = client["cluster/bench/server:80"]
    assert (cluster["lb_method"], len(cluster["endpoints"])) == ("round_robin", 3)
    assert not [key for key in client if key.startswith(("split/", "breaker/"))]


CONFIGURATION = """http {
    access_log off;
    server {
        access_log /dev/stdout default buffer=16k flush=1s if=$x;
        location / { proxy_pass http://a;
            mesh_count on;
        }
    }
}
"""


def test_a_reduced_configuration_lacks_only_what_was_to_go() -> None:
    assert mesh.reduced(CONFIGURATION, mesh.Features()) == CONFIGURATION
    quiet = mesh.reduced(CONFIGURATION, mesh.Features(metrics=False))
    assert quiet == "".join(line for line in CONFIGURATION.splitlines(True) if "mesh_count" not in line)


def test_a_configuration_with_nothing_to_take_away_is_an_error_not_a_measurement_of_the_same_thing() -> None:
    with pytest.raises(ValueError, match="mesh_count"):
        mesh.reduced("http {}", mesh.Features(metrics=False))
