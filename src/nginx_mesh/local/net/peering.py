"""Local meshes that reach each other's pods: a veth pair between two nodes, and routes to the other's pods through it.

A link is wanted when both meshes' files name the other. It is laid when that is written, and again by whichever daemon
starts: after a reboot the second one finds the first one's node. It goes with either mesh.
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

from nginx_mesh.local.node.container import write_private
from nginx_mesh.local.paths import MeshPaths, short_id

from . import netns
from .network import LINK_PREFIX, ipv6_available, remove_interfaces
from .networks import DEFAULT, IPAddress, PodNetworks

log = logging.getLogger(__name__)

# The other end of every link. Nobody has these addresses, and nobody asks for them: the neighbours are written down.
_FAR_ENDS: dict[int, IPAddress] = {4: IPv4Address("169.254.1.2"), 6: IPv6Address("fe80::2")}
_PERMANENT = 0x80


class LinkError(Exception):
    """Meshes that cannot be joined, or are not; the message says why."""


def pod_networks(paths: MeshPaths) -> PodNetworks:
    """The pods' networks of a mesh."""
    try:
        return PodNetworks.parse((paths.state / "network").read_text())
    except FileNotFoundError:
        return DEFAULT


def keep_pod_networks(paths: MeshPaths, networks: PodNetworks) -> None:
    """Write down the networks of a mesh that is being made."""
    write_private(paths.state / "network", str(networks).encode())


def peers(paths: MeshPaths) -> list[str]:
    """Names of the meshes that a mesh is joined to, sorted."""
    return sorted(name for name in _claims(paths) if paths.name in _claims(_sibling(paths, name)))


def connect(one: MeshPaths, other: MeshPaths) -> None:
    """Join two meshes that exist. Does nothing when that is done. Raises LinkError, OSError."""
    if one.name == other.name:
        raise LinkError("a mesh cannot be connected to itself")
    with _changing(one):
        for mesh, joining in ((one, other), (other, one)):
            _check_disjoint(mesh, joining)
        for mesh, joining in ((one, other), (other, one)):
            _keep_claims(mesh, _claims(mesh) | {joining.name})
        _lay(one, other)


def disconnect(one: MeshPaths, other: MeshPaths) -> None:
    """Part two meshes. Raises LinkError when they are not joined, OSError."""
    with _changing(one):
        if other.name not in peers(one):
            raise LinkError(f'mesh "{one.name}" is not connected to "{other.name}"')
        _part(one, other)


def forget(paths: MeshPaths) -> None:
    """Part a mesh, which is about to go, from all others."""
    if not peers(paths):
        return
    with _changing(paths):
        for name in peers(paths):
            _part(paths, _sibling(paths, name))


def restore(paths: MeshPaths) -> None:
    """Lay the links that a mesh should have to those meshes whose nodes are there; what fails is logged."""
    if not peers(paths):
        return
    with _changing(paths):
        for name in peers(paths):
            try:
                _lay(paths, _sibling(paths, name))
            except OSError as error:
                log.error("cannot connect to mesh %s: %s", name, error)


def _check_disjoint(mesh: MeshPaths, joining: MeshPaths) -> None:
    theirs = pod_networks(joining)
    for name in (mesh.name, *peers(mesh)):
        taken = pod_networks(_sibling(mesh, name))
        if name != joining.name and taken.overlaps(theirs):
            whose = f'that of "{name}"' + ("" if name == mesh.name else f', to which "{mesh.name}" is connected')
            raise LinkError(
                f'the pod network {theirs} of "{joining.name}" overlaps with {taken}, {whose}: '
                "make one of the meshes anew with another --pod-network"
            )


def _part(one: MeshPaths, other: MeshPaths) -> None:
    for mesh, leaving in ((one, other), (other, one)):
        _keep_claims(mesh, _claims(mesh) - {leaving.name})
        _remove_end(mesh, leaving)


def _remove_end(here: MeshPaths, there: MeshPaths) -> None:
    if netns.exists(here.node_netns):
        netns.run_in_thread(lambda: remove_interfaces([_interface(there)]), here.node_netns)


def _lay(one: MeshPaths, other: MeshPaths) -> None:
    """Connect two nodes; nothing is to be done while one of them is not there."""
    if not (netns.exists(one.node_netns) and netns.exists(other.node_netns)):
        return
    try:
        if not (_address(one, other) and _address(other, one)):
            _pair(one, other)
        for here, there in ((one, other), (other, one)):
            _route(here, there)
    except NetlinkError as error:
        raise OSError(error.code, f"link to the other mesh: {os.strerror(error.code)}") from error


def _pair(one: MeshPaths, other: MeshPaths) -> None:
    def make() -> None:
        with IPRoute() as netlink:
            peer = {"ifname": _interface(one), "net_ns_fd": fd}
            netlink.link("add", ifname=_interface(other), kind="veth", peer=peer)

    for here, there in ((one, other), (other, one)):
        _remove_end(here, there)
    fd = os.open(netns.path(other.node_netns), os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.run_in_thread(make, one.node_netns)
    finally:
        os.close(fd)


def _route(here: MeshPaths, there: MeshPaths) -> None:
    """Lead what is for the other mesh's pods out of this node."""
    far_end = _address(there, here)
    nodes, destinations = pod_networks(here), pod_networks(there)

    def lead() -> None:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=_interface(there))[0]
            netlink.link("set", index=index, state="up")
            for network in destinations.all:
                if network.version == 6 and not ipv6_available():
                    continue
                gateway = str(_FAR_ENDS[network.version])
                netlink.neigh("replace", dst=gateway, lladdr=far_end, ifindex=index, state=_PERMANENT)
                # The kernel takes packets from these addresses on this interface alone (rp_filter).
                netlink.route(
                    "replace",
                    dst=str(network),
                    gateway=gateway,
                    oif=index,
                    flags=["onlink"],
                    prefsrc=str(nodes.node(network.version)),
                )

    netns.run_in_thread(lead, here.node_netns)


def _address(here: MeshPaths, there: MeshPaths) -> str:
    """The hardware address of this node's end of a link, "" when there is none."""

    def look() -> str:
        with IPRoute() as netlink:
            found = netlink.link("dump", ifname=_interface(there))
            return next((str(link.get("address")) for link in found), "")

    return netns.run_in_thread(look, here.node_netns)


def _interface(there: MeshPaths) -> str:
    """The name of the end of a link that leads to a mesh."""
    return f"{LINK_PREFIX}{short_id(there.name)}"


def _sibling(paths: MeshPaths, name: str) -> MeshPaths:
    return MeshPaths(name, paths.root)


def _file_of_peers(paths: MeshPaths) -> Path:
    return paths.state / "peers.json"


def _claims(paths: MeshPaths) -> set[str]:
    """The meshes that one says it is joined to."""
    file = _file_of_peers(paths)
    try:
        return set(msgspec.json.decode(file.read_bytes(), type=list[str]))
    except FileNotFoundError:
        return set()
    except msgspec.DecodeError as error:
        log.error("%s: %s; mesh %s counts as connected to none", file, error, paths.name)
        return set()


def _keep_claims(paths: MeshPaths, names: set[str]) -> None:
    # Not before the mesh has its directory, and not when that has gone.
    if paths.state.is_dir():
        write_private(_file_of_peers(paths), msgspec.json.encode(sorted(names)))


@contextlib.contextmanager
def _changing(paths: MeshPaths) -> Iterator[None]:
    """One change of links at a time, of all meshes."""
    directory = os.open(paths.state.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(directory, LOCK_EX)
        yield
    finally:
        os.close(directory)
