"""Which networks the pods of a local mesh may have."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.local.net.networks import DEFAULT, SERVICE_NETWORKS, NetworkError, PodNetworks


def test_the_ipv6_network_spells_the_ipv4_one() -> None:
    assert [str(network) for network in DEFAULT.all] == ["10.244.0.0/16", "fd00:10:244::/64"]
    assert [str(node) for node in DEFAULT.nodes] == ["10.244.0.1", "fd00:10:244::1"]
    small = PodNetworks.parse("192.168.250.16/28")
    assert [str(network) for network in small.all] == ["192.168.250.16/28", "fd00:192:168:fa10::/64"]
    assert small.node(6) == ip_address("fd00:192:168:fa10::1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.245.0.1/16", "host bits set"),
        ("10.245.0.0/33", "not an IPv4 network"),
        ("fd00::/64", "not an IPv4 network"),
        ("web", "not an IPv4 network"),
        ("", "not an IPv4 network"),
        ("10.245.0.0/29", "/28 is the smallest"),
        ("10.0.0.0/8", "overlaps with the services' network"),
        ("10.96.5.0/24", "overlaps with the services' network"),
        ("8.8.0.0/16", "private"),
        ("127.0.0.0/16", "private"),
        ("169.254.0.0/16", "private"),
        ("0.0.0.0/0", "private"),
    ],
)
def test_networks_that_pods_cannot_have(text: str, reason: str) -> None:
    with pytest.raises(NetworkError, match=reason):
        PodNetworks.parse(text)


networks = st.builds(
    lambda address, length: PodNetworks(IPv4Network((address, length), strict=False)),
    st.integers(0x0A000000, 0x0AFFFFFF),
    st.integers(9, 28),
)


@given(networks, networks)
def test_networks_that_do_not_overlap_do_so_in_no_ip_version(one: PodNetworks, other: PodNetworks) -> None:
    disjoint = one.all[1] != other.all[1]
    assert one.overlaps(other) or disjoint
    assert one.overlaps(other) == other.overlaps(one)


@given(networks)
def test_what_is_kept_is_what_was_asked_for(asked: PodNetworks) -> None:
    if asked.ipv4.overlaps(IPv4Network(str(SERVICE_NETWORKS[0]))):
        return
    assert PodNetworks.parse(str(asked)) == asked
