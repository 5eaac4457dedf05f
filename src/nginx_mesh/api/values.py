"""Values that NGINX Service Mesh writes as text: modes, sizes, durations, rates, ports, addresses.

Parsers raise FieldError with an empty field; the caller says where the value stood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from .errors import FieldError

MtlsMode = Literal["off", "permissive", "strict"]
AccessControlMode = Literal["allow", "deny"]
CaKeyType = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-4096"]
LbMethod = Literal[
    "round_robin",
    "least_conn",
    "least_time",
    "least_time last_byte",
    "least_time last_byte inflight",
    "random",
    "random two",
    "random two least_conn",
    "random two least_time",
    "random two least_time=last_byte",
]
LogLevel = Literal["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"]
LogFormat = Literal["default", "json"]
KeyManager = Literal["disk", "memory"]
PersistentStorage = Literal["auto", "on", "off"]
Environment = Literal["kubernetes", "openshift"]

HOUR = 3600
MINUTE = 60

_SIZE = re.compile(r"([0-9]{1,19})([kKmMgG]?)")
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# nginx keeps a size in a signed 64-bit integer.
_MAX_SIZE = (1 << 63) - 1
_DURATION = re.compile(r"([1-9][0-9]{0,5})([hm])")
_DURATION_UNITS = {"h": HOUR, "m": MINUTE}
_RATE = re.compile(r"([0-9]{1,9})r/([sm])")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,18})?|\.[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_DNS_LABEL}(\.{_DNS_LABEL})*")
_HOST_PORT = re.compile(r"(\S+):([0-9]{1,5})")


class HostPort(NamedTuple):
    """Where a server listens; an IPv6 address stands without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_size(text: str) -> int:
    """An nginx size ("64k", "1m", "2G", "512") in bytes; 0 means no limit."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise FieldError("", f'"{text}" is not a size: a number of bytes, or a number and k, m or g')
    size = int(found[1]) * _SIZE_UNITS[found[2].lower()]
    if size > _MAX_SIZE:
        raise FieldError("", f'"{text}" is larger than nginx can count (2^63 - 1 bytes)')
    return size


def format_size(size: int) -> str:
    """Bytes as the shortest nginx size."""
    for unit in ("g", "m", "k"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return str(size)


def parse_ca_ttl(text: str) -> int:
    """Life of a CA, "24h" to "999999h", in seconds."""
    found = _DURATION.fullmatch(text)
    if found is None or found[2] != "h" or int(found[1]) < 24:
        raise FieldError("", f'"{text}" is not a number of hours from 24h to 999999h')
    return int(found[1]) * HOUR


def parse_svid_ttl(text: str) -> int:
    """Life of a workload's certificate, "1m" to "999999m" or "1h" to "999999h", in seconds."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise FieldError("", f'"{text}" is not a number of hours or minutes such as 1h or 30m, at most 999999')
    return int(found[1]) * _DURATION_UNITS[found[2]]


def format_duration(seconds: int) -> str:
    """Seconds as hours or, where those are not whole, minutes. Parts of a minute are left out."""
    return f"{seconds // HOUR}h" if seconds % HOUR == 0 else f"{seconds // MINUTE}m"


def parse_rate(text: str) -> int:
    """A rate limit ("10r/s", "30r/m") as requests per 1000 seconds, rounded down as nginx does."""
    found = _RATE.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise FieldError("", f'"{text}" is not a rate such as 10r/s or 30r/m')
    return int(found[1]) * 1000 // (MINUTE if found[2] == "m" else 1)


def parse_delay(value: int | str) -> int:
    """After how many excess requests the next ones are delayed; -1 for "nodelay"."""
    if value == "nodelay":
        return -1
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise FieldError("", f'"{value}" is neither a number of requests nor "nodelay"')
        return int(value)
    if value < 0:
        raise FieldError("", f"{value} is less than 0")
    return value


def parse_ratio(text: str) -> float:
    """A number from 0 to 1."""
    if not _DECIMAL.fullmatch(text) or float(text) > 1:
        raise FieldError("", f'"{text}" is not a number from 0 to 1')
    return float(text)


def parse_boolean(text: str) -> bool:
    """Text "true" or "false", as annotations and labels have it."""
    if text not in ("true", "false"):
        raise FieldError("", f'"{text}" is neither true nor false')
    return text == "true"


def parse_choice(text: str, choices: Sequence[str]) -> str:
    """One of a few words."""
    if text not in choices:
        raise FieldError("", f'"{text}" is not one of {", ".join(choices)}')
    return text


def parse_ports(text: str) -> tuple[int, ...]:
    """A list of ports ("80, 443"), sorted and each once; empty text is an empty list."""
    ports = set()
    for part in text.split(",") if text.strip() else ():
        number = part.strip()
        if not _NUMBER.fullmatch(number) or not 1 <= int(number) <= 65535:
            raise FieldError("", f'"{number}" is not a port (1 to 65535); write for example "80, 443"')
        ports.add(int(number))
    return tuple(sorted(ports))


def format_ports(ports: Sequence[int]) -> str:
    """Ports as `parse_ports` reads them."""
    return ",".join(map(str, ports))


def parse_dns_name(text: str) -> str:
    """A lower-case DNS name of at most 253 characters."""
    if len(text) > 253 or not _DNS_NAME.fullmatch(text):
        raise FieldError("", f'"{text}" is not a DNS name (lower-case letters, digits, "-" and ".")')
    return text


def parse_host_port(text: str) -> HostPort:
    """`host:port`."""
    found = _HOST_PORT.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise FieldError("", f'"{text}" is not host:port')
    return HostPort(found[1].strip("[]"), int(found[2]))


def parse_service_address(text: str) -> HostPort:
    """`service.namespace:port`, the way the address of Prometheus is given."""
    address = parse_host_port(text)
    if "." not in address.host or len(address.host) > 253 or not _DNS_NAME.fullmatch(address.host):
        raise FieldError("", f'"{text}" is not service.namespace:port')
    return address
