"""IP addresses as the mesh writes them."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=65536)
def canonical(address: str) -> str | None:
    """The one spelling of an IPv4 or IPv6 address (RFC 5952); None when it is not one, or only within a zone."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return None if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None else str(parsed)


def family(address: str) -> int:
    """4 or 6, for an address from `canonical`."""
    return 6 if ":" in address else 4


def socket_address(address: str, port: int) -> str:
    """`ip:port`, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
