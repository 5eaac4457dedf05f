"""Names of the mesh's services, for the daemon itself: the collector of traces is named as an application names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE

from .dns import ZoneFile


def resolver(directory: Path) -> Callable[[str], str | None]:
    """Resolves by the zone that the DNS server's directory holds. Raises OSError when there is no such directory."""
    zones = ZoneFile(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return lambda host: address_of(zones, host)


def address_of(zones: ZoneFile, host: str) -> str | None:
    """An address of a host by the mesh's own names, of which `host` may be any from service[.namespace] on."""
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
