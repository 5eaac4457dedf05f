"""Service addresses for clients without a sidecar: the kernel translates them, by the nftables rules made here.

The rules are one table in the node's namespace, which is replaced in one transaction. Existing connections keep their
backend.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from nginx_mesh.local.net.networks import SERVICE_NETWORKS, IPAddress, PodNetworks

from .services import ServiceEntry

TABLE = "inet nginx-mesh"

_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
_KEYWORD = {4: "ip", 6: "ip6"}
_ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


class KubeProxyError(Exception):
    """nft refused the rules; the former rules stay in force."""


def render_rules(entries: Iterable[ServiceEntry], networks: PodNetworks) -> str:
    """The table, in the syntax of nft. It contains no text of objects, only addresses that were parsed, and numbers.

    Packets to a service address and port that has no ready backend, or that no service has, are rejected. Raises
    ValueError for an invalid IP address.
    """
    chains: list[str] = []
    dispatch: dict[int, dict[str, str]] = {4: {}, 6: {}}
    hairpins: dict[int, set[str]] = {4: set(), 6: set()}
    for entry in entries:
        backends = [([ip_address(text) for text in backend.addresses], backend.ports) for backend in entry.active]
        for cluster_ip in map(ip_address, entry.cluster_ips):
            version = cluster_ip.version
            for index, port in enumerate(entry.ports):
                protocol = _PROTOCOLS.get(port.protocol)
                targets = [
                    (address, ports[index])
                    for addresses, ports in backends
                    for address in addresses
                    if address.version == version and ports[index]
                ]
                key = f"{cluster_ip} . {protocol} . {int(port.number)}"
                if protocol is None or not targets or key in dispatch[version]:
                    continue
                name = f"service-{len(chains)}"
                rule = f"meta l4proto {protocol} dnat {_KEYWORD[version]} to {_spread(targets)}"
                chains.append(f"chain {name} {{ {rule}; }}")
                dispatch[version][key] = f"{key} : goto {name}"
                hairpins[version].update(f"{address} . {address}" for address, _ in targets)
    lines = [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{", *chains]
    for version in (4, 6):
        address_type = _ADDRESS_TYPE[version]
        lines.append(f"map services{version} {{ type {address_type} . inet_proto . inet_service : verdict;")
        lines.append(f"{_elements(sorted(dispatch[version].values()))} }}")
        lines.append(f"set hairpins{version} {{ type {address_type} . {address_type};")
        lines.append(f"{_elements(sorted(hairpins[version]))} }}")
    lines.append("chain dispatch {")
    lines += [f"{_KEYWORD[version]} daddr . meta l4proto . th dport vmap @services{version}" for version in (4, 6)]
    lines.append("}")
    lines.append("chain prerouting { type nat hook prerouting priority dstnat; jump dispatch; }")
    lines.append("chain output { type nat hook output priority -100; jump dispatch; }")
    lines.append("chain postrouting { type nat hook postrouting priority srcnat;")
    for node in networks.nodes:
        # A pod that is its own backend would not accept a packet from its own address.
        keyword = _KEYWORD[node.version]
        lines.append(
            f"ct status dnat {keyword} saddr . {keyword} daddr @hairpins{node.version} snat {keyword} to {node}"
        )
    lines.append("}")
    # After translation: a packet that still goes to a service address has no backend.
    for hook in ("prerouting", "output"):
        lines.append(f"chain refuse-{hook} {{ type filter hook {hook} priority filter;")
        for network in SERVICE_NETWORKS:
            # The kernel limits the rate of ICMP errors, but not that of TCP resets.
            match = f"{_KEYWORD[network.version]} daddr {network}"
            lines += [f"{match} meta l4proto tcp reject with tcp reset", f"{match} reject"]
        lines.append("}")
    lines.append("}")
    return "\n".join(lines) + "\n"


async def apply_rules(rules: str) -> None:
    """Load rules into the kernel, in the calling thread's network namespace. Raises KubeProxyError."""
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nft is None:
        raise KubeProxyError("the program nft is not installed (package nftables)")
    process = await asyncio.create_subprocess_exec(
        nft, "-f", "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate(rules.encode())
    if process.returncode:
        raise KubeProxyError(f"nft: {errors.decode(errors='replace').strip()}")


def _spread(targets: Sequence[tuple[IPAddress, int]]) -> str:
    """An expression that chooses one of the targets at random, with equal probability."""
    choices = ", ".join(f"{index} : {address} . {int(port)}" for index, (address, port) in enumerate(targets))
    return f"numgen random mod {len(targets)} map {{ {choices} }}"


def _elements(elements: Sequence[str]) -> str:
    return f"elements = {{ {', '.join(elements)} }};" if elements else ""
