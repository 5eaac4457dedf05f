"""DNS names of the mesh, resolved for the daemon itself: the settings name the collector of traces by such a name."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE

from .dns import ZoneFile


def resolver(directory: Path) -> Callable[[str], str | None]:
    """A function that resolves names by the zone in the DNS server's directory. Raises OSError without a directory."""
    zones = ZoneFile(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return lambda host: address_of(zones, host)


def address_of(zones: ZoneFile, host: str) -> str | None:
    """An address of a host, None when the name does not exist.

    `host` is an IP address or the name of a Service, from `SERVICE[.NAMESPACE]` to the complete one. The default
    namespace is that of the control plane.
    """
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    zone = zones.current()
    name, domain = host.rstrip(".").lower(), zone.cluster_domain
    for suffix in ("", f".{domain}", f".svc.{domain}", f".{CONTROL_PLANE_NAMESPACE}.svc.{domain}"):
        for _, address in zone.addresses(name + suffix):
            return str(address)
    return None
