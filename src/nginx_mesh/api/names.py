"""What Kubernetes allows as a name, a label, a key. Checks give the reason why not, or None."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def label_name(name: str) -> str | None:
    """An RFC 1123 label: what names a Service, a Namespace, a container."""
    if not name:
        return "is required"
    if len(name) > 63:
        return "is longer than 63 characters"
    if not _LABEL.fullmatch(name):
        return f'"{name}" must be lower-case letters, digits and "-", with a letter or digit at both ends'
    return None


def subdomain_name(name: str) -> str | None:
    """An RFC 1123 subdomain: what names most objects."""
    if not name:
        return "is required"
    if len(name) > 253:
        return "is longer than 253 characters"
    if not all(_LABEL.fullmatch(part) for part in name.split(".")):
        return f'"{name}" must be lower-case letters, digits, "-" and ".", with a letter or digit around each "."'
    return None


def qualified_key(key: str) -> str | None:
    """A label's or annotation's key: a name, and before it perhaps a DNS name and a slash."""
    prefix, slash, name = key.rpartition("/")
    if slash and subdomain_name(prefix.lower()) is not None:
        return f'the part before "/" of "{key}" is not a DNS name'
    return _qualified(name, "the key")


def label_value(value: str) -> str | None:
    """A label's value."""
    return _qualified(value, "the value") if value else None


def port_name(name: str) -> str | None:
    """A container port's name (RFC 6335), which Services and probes may refer to."""
    if len(name) > 15:
        return f'"{name}" is longer than 15 characters'
    if not _PORT_NAME.fullmatch(name):
        return f'"{name}" must be lower-case letters, digits and single "-", with at least one letter'
    return None


def port_number(number: int) -> str | None:
    """A port."""
    return None if 1 <= number <= 65535 else f"{number} is not between 1 and 65535"


def data_key(key: str) -> str | None:
    """A key of a ConfigMap or Secret, which may become a file's name."""
    if len(key) > 253:
        return "the key is longer than 253 characters"
    if not _DATA_KEY.fullmatch(key) or key.startswith("..") or key == ".":
        return "the key must be letters, digits, '-', '_' and '.', and no path"
    return None


def http_token(text: str) -> str | None:
    """A method or a header's name (RFC 9110)."""
    return None if _TOKEN.fullmatch(text) else f'"{text}" is not a token of HTTP'


def _qualified(text: str, what: str) -> str | None:
    if len(text) > 63:
        return f"{what} is longer than 63 characters"
    if not _QUALIFIED.fullmatch(text):
        return f'{what} "{text}" must be letters, digits, "-", "_" and ".", with a letter or digit at both ends'
    return None
