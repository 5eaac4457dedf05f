"""The text form of IP addresses in the mesh."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=65536)
def canonical(address: str) -> str | None:
    """The canonical text of an IPv4 or IPv6 address (RFC 5952); None for other text and for an address with a zone."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return None if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None else str(parsed)


def family(address: str) -> int:
    """4 or 6, for an address from `canonical`."""
    return 6 if ":" in address else 4


def socket_address(address: str, port: int) -> str:
    """`ip:port`, with an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
