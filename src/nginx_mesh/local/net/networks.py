"""The networks of a local mesh's pods, node and services. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# Every mesh has the same ones: a service's address is only used within its own mesh.
SERVICE_NETWORKS: tuple[IPNetwork, ...] = (IPv4Network("10.96.0.0/16"), IPv6Network("fd00:10:96::/112"))

_LONGEST_PREFIX = 28
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))


class NetworkError(ValueError):
    """A network that pods cannot use; the message says why."""


@dataclass(frozen=True)
class PodNetworks:
    """The networks of the pods' addresses: the IPv4 network that was asked for, and an IPv6 network derived from it."""

    ipv4: IPv4Network

    @classmethod
    def parse(cls, text: str) -> PodNetworks:
        """Parse an IPv4 network such as 10.245.0.0/16. Raises NetworkError."""
        try:
            network = IPv4Network(text)
        except ValueError as error:
            raise NetworkError(f'"{text}" is not an IPv4 network such as 10.245.0.0/16: {error}') from None
        if network.prefixlen > _LONGEST_PREFIX:
            raise NetworkError(f"{network} has {network.num_addresses} addresses: /{_LONGEST_PREFIX} is the smallest")
        if not any(network.subnet_of(private) for private in _PRIVATE):
            raise NetworkError(f"{network} is not in a private range ({', '.join(map(str, _PRIVATE))})")
        if network.overlaps(SERVICE_NETWORKS[0]):
            raise NetworkError(f"{network} overlaps with the services' network {SERVICE_NETWORKS[0]}")
        return cls(network)

    @cached_property
    def all(self) -> tuple[IPNetwork, ...]:
        """The IPv4 network, and the IPv6 network, whose prefix contains the address of the IPv4 network."""
        first, second, third, fourth = self.ipv4.network_address.packed
        ipv6 = IPv6Network(f"fd00:{first}:{second}:{third << 8 | fourth:x}::/64")
        return self.ipv4, ipv6

    @cached_property
    def nodes(self) -> tuple[IPAddress, ...]:
        """The node's own addresses: the first host address of each network. No pod may have them."""
        return tuple(network[1] for network in self.all)

    def node(self, version: int) -> IPAddress:
        """The node's own address of an IP version."""
        return self.nodes[0 if version == 4 else 1]

    def overlaps(self, other: PodNetworks) -> bool:
        """Whether a pod of each mesh could have the same address."""
        return self.ipv4.overlaps(other.ipv4)

    def __str__(self) -> str:
        return str(self.ipv4)


DEFAULT = PodNetworks(IPv4Network("10.244.0.0/16"))
