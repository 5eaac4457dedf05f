"""Addresses for pods and services."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address


class AddressError(Exception):
    """The address is taken or outside the range, or no address is left."""


class AddressPool:
    """Allocates the addresses of a network in turn, so that a freed address is reused as late as possible.

    `allocate` never returns the first `reserved` addresses, nor the last one. `cursor` is the position that it
    continues from; storing it keeps the order across restarts. `version` is 4 or 6. Each transaction makes a new pool,
    from the addresses that are in use then.
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
        """Allocate this address, and return it in its canonical form. Raises AddressError."""
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
