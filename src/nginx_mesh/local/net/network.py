"""The node's network: routing between pods, each in a network namespace of its own.

No bridge and no NAT: a pod has one address per IP version on `eth0`, with the node's end of that veth pair as its
gateway, and the node has a route to each pod. The gateway's addresses are link-local and the same for every pod.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from nginx_mesh.local.paths import MeshPaths, short_id

from . import netns
from .networks import SERVICE_NETWORKS, IPAddress, PodNetworks

_GATEWAYS: dict[int, IPAddress] = {4: IPv4Address("169.254.1.1"), 6: IPv6Address("fe80::1")}
_HOST_PREFIX = {4: 32, 6: 128}
_SCOPE_LINK = 253
_IFA_F_NODAD = 0x02
_LOOPBACK = 1
_INTERFACE_PREFIX = "pod"
# The node's ends of the veth pairs to the nodes of other meshes (peering.py).
PEER_INTERFACE_PREFIX = "link"
_SYSCTL = Path("/proc/sys/net")

_COMMON_SYSCTLS = {
    # No router advertisements, duplicate detection or automatic addresses: addresses are assigned, and usable at once.
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    # A pod cannot send packets with the address of another pod.
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "1",
}
_NODE_SYSCTLS = {
    **_COMMON_SYSCTLS,
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    # Sidecars send their reports in bursts; by default the kernel would queue only 10 of them.
    "unix/max_dgram_qlen": "4096",
}
# Unprivileged processes may listen on any port, and may ping, as container runtimes allow.
_POD_SYSCTLS = {**_COMMON_SYSCTLS, "ipv4/ip_unprivileged_port_start": "0", "ipv4/ping_group_range": "0 2147483647"}


def ipv6_available() -> bool:
    """Whether the kernel has IPv6. Without it, pods have only an IPv4 address."""
    return (_SYSCTL / "ipv6").is_dir()


def set_up_node(networks: PodNetworks) -> None:
    """Make the calling thread's network namespace the node: addresses, forwarding, routes to service addresses.

    Idempotent, so that a new daemon can call it while pods run.
    """
    _set_sysctls(_NODE_SYSCTLS)
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK, state="up")
        for address in _usable(networks.nodes):
            _add_address(netlink, _LOOPBACK, address)
        for network in SERVICE_NETWORKS:
            # For connections of the node's own processes: the kernel needs a route before it translates an address.
            if network.version == 4 or ipv6_available():
                node = str(networks.node(network.version))
                netlink.route("replace", dst=str(network), oif=_LOOPBACK, prefsrc=node)


def has_pod(paths: MeshPaths, uid: str) -> bool:
    """Whether the pod has a namespace that is connected to the caller's namespace, which must be the node's."""
    if not netns.exists(paths.pod_netns(uid)):
        return False
    with IPRoute() as netlink:
        return bool(netlink.link_lookup(ifname=_interface_name(short_id(uid))))


def add_pod(paths: MeshPaths, uid: str, addresses: Iterable[str], networks: PodNetworks) -> None:
    """Make the pod's namespace and connect it to the caller's, which must be the node's. Idempotent.

    Raises OSError when the kernel refuses, ValueError for an invalid IP address.
    """
    namespace = paths.pod_netns(uid)
    usable = _usable(ip_address(address) for address in addresses)
    if has_pod(paths, uid):
        return
    remove_pod(paths, uid)
    netns.create(namespace)
    node_fd = netns.open_own()
    try:
        netns.run_in_thread(lambda: _set_up_pod(_interface_name(short_id(uid)), node_fd, usable), namespace)
        _connect_pod(_interface_name(short_id(uid)), usable, networks)
    except NetlinkError as error:
        remove_pod(paths, uid)
        raise OSError(error.code, f"network of the pod: {os.strerror(error.code)}") from error
    finally:
        os.close(node_fd)


def remove_pod(paths: MeshPaths, uid: str) -> None:
    """Disconnect the pod and remove the name of its namespace. Idempotent."""
    remove_interface(short_id(uid))
    netns.delete(paths.pod_netns(uid))


def remove_interface(short: str) -> None:
    """Remove the veth pair of the pod with this short id, if it exists."""
    remove_interfaces([_interface_name(short)])


def tear_down_node() -> None:
    """Remove the node's addresses, and its interfaces to pods and peers, from the calling thread's namespace."""
    with IPRoute() as netlink:
        names = [link.get("ifname") for link in netlink.get_links()]
        netlink.flush_addr(index=_LOOPBACK)
    remove_interfaces([name for name in names if name and name.startswith((_INTERFACE_PREFIX, PEER_INTERFACE_PREFIX))])


def remove_interfaces(names: Iterable[str]) -> None:
    """Remove those of the named interfaces that exist from the calling thread's namespace."""
    with IPRoute() as netlink:
        for name in names:
            for index in netlink.link_lookup(ifname=name):
                with contextlib.suppress(NetlinkError):
                    netlink.link("del", index=index)


def _interface_name(short: str) -> str:
    """The node's end of a pod's veth pair."""
    return f"{_INTERFACE_PREFIX}{short}"


def _set_up_pod(node_interface: str, node_fd: int, addresses: list[IPAddress]) -> None:
    _set_sysctls(_POD_SYSCTLS)
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK, state="up")
        peer = {"ifname": node_interface, "net_ns_fd": node_fd}
        netlink.link("add", ifname="eth0", kind="veth", peer=peer)
        index = netlink.link_lookup(ifname="eth0")[0]
        netlink.link("set", index=index, state="up")
        for address in addresses:
            _add_address(netlink, index, address)
        # IPv6 routes take effect once the node's end is up, which is the caller's next step.
        for version in {address.version for address in addresses}:
            gateway = str(_GATEWAYS[version])
            if version == 4:
                netlink.route("add", dst=f"{gateway}/32", oif=index, scope=_SCOPE_LINK)
                netlink.route("add", dst="default", gateway=gateway, oif=index)
            else:
                netlink.route("add", dst="::/0", gateway=gateway, oif=index)


def _connect_pod(interface: str, addresses: list[IPAddress], networks: PodNetworks) -> None:
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=interface)[0]
        netlink.link("set", index=index, state="up")
        for address in addresses:
            _add_address(netlink, index, _GATEWAYS[address.version])
            host = f"{address}/{_HOST_PREFIX[address.version]}"
            netlink.route("replace", dst=host, oif=index, prefsrc=str(networks.node(address.version)))


def _add_address(netlink: IPRoute, index: int, address: IPAddress) -> None:
    prefix = 64 if address.is_link_local and address.version == 6 else _HOST_PREFIX[address.version]
    scope = _SCOPE_LINK if address.is_link_local else 0
    flags = _IFA_F_NODAD if address.version == 6 else 0
    netlink.addr("replace", index=index, address=str(address), prefixlen=prefix, scope=scope, flags=flags)


def _usable(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    return [address for address in addresses if address.version == 4 or ipv6_available()]


def _set_sysctls(values: dict[str, str]) -> None:
    """Set the sysctls of the calling thread's network namespace, except those that this kernel does not have."""
    for name, value in values.items():
        with contextlib.suppress(FileNotFoundError):
            (_SYSCTL / name).write_text(value)
