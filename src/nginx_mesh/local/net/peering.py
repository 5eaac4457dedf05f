"""Peering of local meshes, so that each reaches the pods of the other.

A veth pair connects the two nodes, and each node has a route through it to the pods of the other. Two meshes are peers
when the files of both name the other. The pair is made when these files are written, and again by every daemon that
starts, because after a reboot only the second daemon finds the nodes of both meshes. It is removed with either mesh.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from nginx_mesh.local.files import write_file
from nginx_mesh.local.paths import MeshPaths, short_id

from . import netns
from .network import PEER_INTERFACE_PREFIX, ipv6_available, remove_interfaces
from .networks import DEFAULT, IPAddress, PodNetworks

log = logging.getLogger(__name__)

# The gateway of every route to a peer. No interface has these addresses, and the kernel never has to resolve them: they
# are permanent entries of the neighbour table, with the hardware address of the peer's end.
_GATEWAYS: dict[int, IPAddress] = {4: IPv4Address("169.254.1.2"), 6: IPv6Address("fe80::2")}
_PERMANENT = 0x80


class PeeringError(Exception):
    """Two meshes cannot be connected, or are not connected; the message says why."""


def pod_networks(paths: MeshPaths) -> PodNetworks:
    """The networks of a mesh's pods."""
    try:
        return PodNetworks.parse((paths.state / "network").read_text())
    except FileNotFoundError:
        return DEFAULT


def save_pod_networks(paths: MeshPaths, networks: PodNetworks) -> None:
    """Store the networks of the pods of a new mesh."""
    write_file(paths.state / "network", str(networks).encode())


def peers(paths: MeshPaths) -> list[str]:
    """The names of a mesh's peers, sorted."""
    return sorted(name for name in _read_peers(paths) if paths.name in _read_peers(_peer_paths(paths, name)))


def connect(one: MeshPaths, other: MeshPaths) -> None:
    """Connect two existing meshes. Idempotent. Raises PeeringError, OSError."""
    if one.name == other.name:
        raise PeeringError("a mesh cannot be connected to itself")
    with _locked(one):
        for mesh, peer in ((one, other), (other, one)):
            _check_disjoint(mesh, peer)
        for mesh, peer in ((one, other), (other, one)):
            _write_peers(mesh, _read_peers(mesh) | {peer.name})
        _connect_nodes(one, other)


def disconnect(one: MeshPaths, other: MeshPaths) -> None:
    """Disconnect two meshes. Raises PeeringError when they are not connected, OSError."""
    with _locked(one):
        if other.name not in peers(one):
            raise PeeringError(f'mesh "{one.name}" is not connected to "{other.name}"')
        _disconnect(one, other)


def disconnect_all(paths: MeshPaths) -> None:
    """Disconnect a mesh, which is about to be removed, from all its peers."""
    if not peers(paths):
        return
    with _locked(paths):
        for name in peers(paths):
            _disconnect(paths, _peer_paths(paths, name))


def restore(paths: MeshPaths) -> None:
    """Connect the node of a mesh to the nodes of its peers, as far as those exist. Failures are logged."""
    if not peers(paths):
        return
    with _locked(paths):
        for name in peers(paths):
            try:
                _connect_nodes(paths, _peer_paths(paths, name))
            except OSError as error:
                log.error("cannot connect to mesh %s: %s", name, error)


def _check_disjoint(mesh: MeshPaths, peer: MeshPaths) -> None:
    """Check that a new peer's network overlaps neither with the mesh's own network nor with those of its peers."""
    network = pod_networks(peer)
    for name in (mesh.name, *peers(mesh)):
        taken = pod_networks(_peer_paths(mesh, name))
        if name != peer.name and taken.overlaps(network):
            whose = f'that of "{name}"' + ("" if name == mesh.name else f', to which "{mesh.name}" is connected')
            raise PeeringError(
                f'the pod network {network} of "{peer.name}" overlaps with {taken}, {whose}: '
                "make one of the meshes anew with another --pod-network"
            )


def _disconnect(one: MeshPaths, other: MeshPaths) -> None:
    for mesh, peer in ((one, other), (other, one)):
        _write_peers(mesh, _read_peers(mesh) - {peer.name})
        _remove_interface(mesh, peer)


def _remove_interface(mesh: MeshPaths, peer: MeshPaths) -> None:
    if netns.exists(mesh.node_netns):
        netns.run_in_thread(lambda: remove_interfaces([_interface_to(peer)]), mesh.node_netns)


def _connect_nodes(one: MeshPaths, other: MeshPaths) -> None:
    """Connect two nodes. Does nothing while one of them does not exist."""
    if not (netns.exists(one.node_netns) and netns.exists(other.node_netns)):
        return
    try:
        if not (_hardware_address(one, other) and _hardware_address(other, one)):
            _make_pair(one, other)
        for mesh, peer in ((one, other), (other, one)):
            _add_routes(mesh, peer)
    except NetlinkError as error:
        raise OSError(error.code, f"link to the other mesh: {os.strerror(error.code)}") from error


def _make_pair(one: MeshPaths, other: MeshPaths) -> None:
    def make() -> None:
        with IPRoute() as netlink:
            far_end = {"ifname": _interface_to(one), "net_ns_fd": fd}
            netlink.link("add", ifname=_interface_to(other), kind="veth", peer=far_end)

    for mesh, peer in ((one, other), (other, one)):
        _remove_interface(mesh, peer)
    fd = os.open(netns.path(other.node_netns), os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.run_in_thread(make, one.node_netns)
    finally:
        os.close(fd)


def _add_routes(mesh: MeshPaths, peer: MeshPaths) -> None:
    """Route packets for the peer's pods through the veth pair."""
    far_end = _hardware_address(peer, mesh)
    own_networks, peer_networks = pod_networks(mesh), pod_networks(peer)

    def add() -> None:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=_interface_to(peer))[0]
            netlink.link("set", index=index, state="up")
            for network in peer_networks.all:
                if network.version == 6 and not ipv6_available():
                    continue
                gateway = str(_GATEWAYS[network.version])
                netlink.neigh("replace", dst=gateway, lladdr=far_end, ifindex=index, state=_PERMANENT)
                # Because of this route, the kernel accepts packets from these addresses on this interface only
                # (rp_filter).
                netlink.route(
                    "replace",
                    dst=str(network),
                    gateway=gateway,
                    oif=index,
                    flags=["onlink"],
                    prefsrc=str(own_networks.node(network.version)),
                )

    netns.run_in_thread(add, mesh.node_netns)


def _hardware_address(mesh: MeshPaths, peer: MeshPaths) -> str:
    """The hardware address of a node's interface to a peer, "" when there is no such interface."""

    def read() -> str:
        with IPRoute() as netlink:
            found = netlink.link("dump", ifname=_interface_to(peer))
            return next((str(link.get("address")) for link in found), "")

    return netns.run_in_thread(read, mesh.node_netns)


def _interface_to(peer: MeshPaths) -> str:
    """The name of the interface that leads to a peer."""
    return f"{PEER_INTERFACE_PREFIX}{short_id(peer.name)}"


def _peer_paths(paths: MeshPaths, name: str) -> MeshPaths:
    return MeshPaths(name, paths.root)


def _peers_file(paths: MeshPaths) -> Path:
    return paths.state / "peers.json"


def _read_peers(paths: MeshPaths) -> set[str]:
    """The meshes that a mesh's file names as its peers."""
    file = _peers_file(paths)
    try:
        return set(msgspec.json.decode(file.read_bytes(), type=list[str]))
    except FileNotFoundError:
        return set()
    except msgspec.DecodeError as error:
        log.error("%s: %s; mesh %s counts as connected to none", file, error, paths.name)
        return set()


def _write_peers(paths: MeshPaths, names: set[str]) -> None:
    # The directory of a mesh may not exist yet, or no longer.
    if paths.state.is_dir():
        write_file(_peers_file(paths), msgspec.json.encode(sorted(names)))


@contextlib.contextmanager
def _locked(paths: MeshPaths) -> Iterator[None]:
    """Allow one change of peers at a time, of all meshes."""
    directory = os.open(paths.state.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(directory, LOCK_EX)
        yield
    finally:
        os.close(directory)
