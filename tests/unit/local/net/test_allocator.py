"""Address allocation."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.local.net.allocator import AddressError, AddressPool

SMALL = ip_network("10.0.0.0/28")


def test_a_freed_address_comes_back_last() -> None:
    pool = AddressPool(SMALL, used=[])
    first = pool.allocate()
    assert first == "10.0.0.2"
    again = AddressPool(SMALL, used=[], cursor=pool.cursor)
    assert [again.allocate() for _ in range(13)][-1] == first


@given(used=st.sets(st.integers(2, 14)), cursor=st.integers(0, 12))
def test_every_free_address_is_given_out_once_and_no_other(used: set[int], cursor: int) -> None:
    pool = AddressPool(SMALL, used=[f"10.0.0.{n}" for n in used], cursor=cursor)
    free = {f"10.0.0.{n}" for n in range(2, 15) if n not in used}
    assert {pool.allocate() for _ in free} == free
    with pytest.raises(AddressError, match="no free address"):
        pool.allocate()


def test_a_given_address_must_be_free_and_in_range() -> None:
    pool = AddressPool(ip_network("fd00::/112"), used=["fd00::5"])
    assert pool.claim("fd00:0::6") == "fd00::6"
    for address, reason in [
        ("fd00::5", "already allocated"),
        ("fd00::6", "already allocated"),
        ("10.0.0.1", "not in the range"),
        ("x", "not an IP address"),
    ]:
        with pytest.raises(AddressError, match=reason):
            pool.claim(address)
