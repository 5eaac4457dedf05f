"""Addresses for pods and services."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address


class AddressError(Exception):
    """The address cannot be had: taken, outside the range, or none is left."""


class AddressPool:
    """Hands out the addresses of a network in turn, so that a freed one comes back last.

    The first `reserved` addresses and the last one are never given out on their own. `cursor` is where to go on from:
    keep it to keep the order over a restart. `version` is 4 or 6. A pool is made anew for each transaction, from what
    is in use then.
    """

    def __init__(
        self, network: IPv4Network | IPv6Network, used: Iterable[str], cursor: int = 0, reserved: int = 2
    ) -> None:
        self._network = network
        self._first = reserved
        self._size = network.num_addresses - reserved - 1
        self._used = set(used)
        self.cursor = cursor
        self.version = network.version

    def allocate(self) -> str:
        """A free address. Raises AddressError when there is none."""
        for _ in range(min(self._size, len(self._used) + 1)):
            address = str(self._network[self._first + self.cursor % self._size])
            self.cursor = (self.cursor + 1) % self._size
            if address not in self._used:
                self._used.add(address)
                return address
        raise AddressError(f"no free address in {self._network}")

    def claim(self, address: str) -> str:
        """Take this very address and return it in its canonical form. Raises AddressError."""
        try:
            parsed = ip_address(address)
        except ValueError:
            raise AddressError(f"{address!r} is not an IP address") from None
        if parsed not in self._network:
            raise AddressError(f"{address} is not in the range {self._network}")
        if str(parsed) in self._used:
            raise AddressError(f"{address} is already allocated")
        self._used.add(str(parsed))
        return str(parsed)
