"""The zone of a cluster, and answers from it."""

from __future__ import annotations

from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.local.node.dns import Snapshot, Zone, answer, build_zone
from nginx_mesh.local.node.services import Backend, Port, ServiceEntry

HTTP = Port(name="http", protocol="TCP", number=80)


def entry(name: str, *backends: Backend, ips: tuple[str, ...] = (), **fields: Any) -> ServiceEntry:
    return ServiceEntry(namespace="ns", name=name, cluster_ips=ips, ports=(HTTP,), backends=backends, **fields)


def backend(ip: str, hostname: str = "", ready: bool = True, port: int = 8080) -> Backend:
    return Backend(addresses=(ip,), ports=(port,), ready=ready, hostname=hostname)


ZONE = build_zone(
    Snapshot(
        cluster_domain="cluster.local",
        services=[
            entry("web", backend("10.244.0.9"), ips=("10.96.0.1", "fd00:10:96::1")),
            entry("v4only", ips=("10.96.0.2",)),
            entry("db", backend("10.244.0.5", "db-0"), backend("10.244.0.6", "db-1", ready=False)),
            entry("plain", backend("10.244.0.7")),
            entry("early", backend("10.244.0.8", "e-0", ready=False), publish_not_ready=True),
            entry("empty"),
        ],
    )
)


def ask(name: str, kind: str = "A", *, zone: Zone = ZONE, udp: bool = True, edns: int = 0) -> DNSRecord:
    query = DNSRecord.question(name, kind)
    if edns:
        query.add_ar(EDNS0(udp_len=edns))
    reply = answer(zone, query.pack(), udp=udp)
    assert reply is not None
    return DNSRecord.parse(reply)


def data(name: str, kind: str = "A") -> list[str]:
    return sorted(str(record.rdata) for record in ask(f"{name}.ns.svc.cluster.local", kind).rr)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web", "A", ["10.96.0.1"]),
        ("WEB", "AAAA", ["fd00:10:96::1"]),
        ("_http._tcp.web", "SRV", ["0 100 80 web.ns.svc.cluster.local."]),
        ("db", "A", ["10.244.0.5"]),
        ("db-0.db", "A", ["10.244.0.5"]),
        ("_http._tcp.db", "SRV", ["0 100 8080 db-0.db.ns.svc.cluster.local."]),
        ("_http._tcp.plain", "SRV", ["0 100 8080 10-244-0-7.plain.ns.svc.cluster.local."]),
        ("10-244-0-7.plain", "A", ["10.244.0.7"]),
        ("early", "A", ["10.244.0.8"]),
        ("e-0.early", "A", ["10.244.0.8"]),
    ],
)
def test_records_of_services_and_pods(name: str, kind: str, expected: list[str]) -> None:
    assert data(name, kind) == expected


def test_srv_answers_bring_the_addresses() -> None:
    reply = ask("_http._tcp.db.ns.svc.cluster.local", "SRV")
    assert [(str(r.rname), str(r.rdata)) for r in reply.ar] == [("db-0.db.ns.svc.cluster.local.", "10.244.0.5")]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("1.0.96.10.in-addr.arpa", "web.ns.svc.cluster.local."),
        ("5.0.244.10.in-addr.arpa", "db-0.db.ns.svc.cluster.local."),
    ],
)
def test_reverse_lookup(address: str, name: str) -> None:
    assert [str(record.rdata) for record in ask(address, "PTR").rr] == [name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("v4only.ns.svc.cluster.local", "AAAA"),
        ("empty.ns.svc.cluster.local", "A"),
        ("web.ns.svc.cluster.local", "TXT"),
        ("web.ns.svc.cluster.local", "ANY"),
        ("ns.svc.cluster.local", "A"),
        ("_tcp.web.ns.svc.cluster.local", "SRV"),
        ("svc.cluster.local", "A"),
        ("cluster.local", "A"),
        ("1.0.96.10.in-addr.arpa", "A"),
    ],
)
def test_names_that_exist_without_such_a_record_are_no_error(name: str, kind: str) -> None:
    reply = ask(name, kind)
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])


@pytest.mark.parametrize(
    "name",
    ["no.ns.svc.cluster.local", "db-1.db.ns.svc.cluster.local", "web.other.svc.cluster.local", "x.cluster.local"],
)
def test_names_of_the_cluster_that_do_not_exist(name: str) -> None:
    reply = ask(name)
    assert reply.header.rcode == RCODE.NXDOMAIN
    assert [record.rtype for record in reply.auth] == [QTYPE.SOA]


@pytest.mark.parametrize("name", ["example.com", "local", "", "web", "9.9.9.9.in-addr.arpa"])
def test_what_is_outside_does_not_exist(name: str) -> None:
    assert ask(name).header.rcode == RCODE.NXDOMAIN


def test_answers_that_do_not_fit_are_truncated_for_udp_only() -> None:
    many = [backend(f"10.244.1.{number}") for number in range(1, 60)]
    zone = build_zone(Snapshot(cluster_domain="cluster.local", services=[entry("many", *many)]))
    name = "many.ns.svc.cluster.local"
    assert ask(name, zone=zone).header.tc == 1
    assert ask(name, zone=zone).rr == []
    assert len(ask(name, zone=zone, udp=False).rr) == 59
    bigger = ask(name, zone=zone, edns=4096)
    assert (bigger.header.tc, len(bigger.rr)) == (0, 59)
    assert [record.rtype for record in bigger.ar] == [QTYPE.OPT]


def test_anything_but_one_standard_question_is_not_implemented() -> None:
    update = DNSRecord(DNSHeader(opcode=5), q=DNSQuestion("web.ns.svc.cluster.local"))
    reply = answer(ZONE, update.pack(), udp=True)
    assert reply is not None and DNSRecord.parse(reply).header.rcode == RCODE.NOTIMP


@given(st.binary(max_size=200))
def test_garbage_is_ignored_or_answered_but_never_an_exception(packet: bytes) -> None:
    reply = answer(ZONE, packet, udp=True)
    assert reply is None or len(reply) >= 12


@given(st.binary(max_size=80), st.integers(0, 80))
def test_damaged_queries_are_no_danger(noise: bytes, position: int) -> None:
    query = DNSRecord.question("web.ns.svc.cluster.local").pack()
    answer(ZONE, query[:position] + noise + query[position:], udp=True)


def test_replies_are_not_answered() -> None:
    assert answer(ZONE, ask("web.ns.svc.cluster.local").pack(), udp=True) is None
