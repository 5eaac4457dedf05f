"""Removes secrets from what goes into a support package. No I/O.

Secrets are removed in two steps. `redacted` removes the fields of documents that hold secrets: the data of Secrets,
values of environment variables, private keys. `Scrubber` then removes from the text whatever looks like a secret, and
every known secret wherever it occurs.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

REMOVED = "<redacted>"

# Annotations that the mesh reads or writes. Others may hold anything; that of the probes holds headers.
_OUR_ANNOTATION = re.compile(
    r"(config\.nsm\.nginx\.com/[a-z-]+|injector\.nsm\.nginx\.com/(status|auto-inject)|nsm\.nginx\.com/[a-z-]+)"
)
_SECRET_NAME = re.compile(r"auth|cookie|token|secret|passw|credential|session|key", re.IGNORECASE)
# Removing shorter secrets would remove too much text that is not secret.
_SHORTEST_SECRET = 6

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_USERINFO = re.compile(r"(://[^/\s:@\"']*:)[^/\s@\"']+@")
_PARAMETER = re.compile(
    r"(?i)\b((?:[a-z0-9]+[_-])*(?:token|passw(?:or)?d|passphrase|secret|api_?key|signature|sig)[\"']?\s*[=:]\s*[\"']?)"
    r"(?!<)[^&\s\"',;]{3,}"
)
# A token has letters and digits, and no characters of addresses and paths.
_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_+=-]{16,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}(?:(?:\\n|\r?\n)[A-Za-z0-9+/_-]+)*={0,2}")


def redacted(value: Any, name: str = "") -> Any:
    """A document without the fields that hold secrets; `name` is the name of the field that the document is in."""
    if isinstance(value, Mapping):
        if value.get("kind") in ("Secret", "ConfigMap") and "metadata" in value:
            value = {k: _sizes(v) if k in ("data", "stringData", "binaryData") else v for k, v in value.items()}
        return {key: _redacted_field(name, key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, name) for item in value]
    return value


def secrets_of(objects: Iterable[Mapping[str, Any]]) -> set[str]:
    """The values of Secrets, and of environment variables with a secret-sounding name or a value like a token."""
    found: set[str] = set()
    for resource in objects:
        if resource.get("kind") == "Secret":
            found.update(map(str, resource.get("stringData", {}).values()))
            for value in resource.get("data", {}).values():
                found.add(str(value))
                found.add(_decoded(str(value)))
        _gather_env(resource, found)
    return {value for value in found if len(value) >= _SHORTEST_SECRET}


class Scrubber:
    """Removes from texts whatever looks like a secret, and the known `secrets`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        lines = {line.strip() for secret in secrets for line in (secret, *secret.splitlines())}
        long = [line for line in lines if len(line) >= _SHORTEST_SECRET]
        forms = {form for line in long for form in (line, json.dumps(line, ensure_ascii=False)[1:-1], quote(line))}
        known = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        text = _PEM.sub(f"{REMOVED} (a private key)", text)
        text = _BASE64.sub(lambda found: REMOVED if _is_key(found[0]) else found[0], text)
        text = _JWT.sub(f"{REMOVED} (a token)", text)
        text = _AUTHORIZATION.sub(rf"\1 {REMOVED}", text)
        text = _USERINFO.sub(rf"\1{REMOVED}@", text)
        text = _PARAMETER.sub(rf"\1{REMOVED}", text)
        return text if self._known is None else self._known.sub(REMOVED, text)


def _redacted_field(parent: str, key: str, value: Any) -> Any:
    if parent == "annotations":
        return value if _OUR_ANNOTATION.fullmatch(key) else REMOVED
    if key in ("env", "httpHeaders") and isinstance(value, list):
        return [{**item, "value": REMOVED} if isinstance(item, Mapping) and "value" in item else item for item in value]
    if key in ("command", "args") and isinstance(value, list):
        rest = value[1:] if key == "command" else value
        return [*value[: len(value) - len(rest)], *([f"<{len(rest)} more redacted>"] if rest else [])]
    if isinstance(value, str) and (key in ("private_key", "token") or (parent, key) == ("identity", "key")):
        return REMOVED
    if key.startswith("probe/") and isinstance(value, Mapping):
        return redacted({**value, "headers": dict.fromkeys(value.get("headers", {}), REMOVED)}, key)
    if parent == "headers" and _SECRET_NAME.search(key):
        return REMOVED
    return redacted(value, key)


def _sizes(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return REMOVED
    return {name: f"<{len(str(value))} characters redacted>" for name, value in data.items()}


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _gather_env(value: Any, found: set[str]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "env" and isinstance(item, list):
                values = [each for each in item if isinstance(each, Mapping) and "value" in each]
                found.update(str(each["value"]) for each in values if _sounds_secret(each))
            else:
                _gather_env(item, found)
    elif isinstance(value, list):
        for item in value:
            _gather_env(item, found)


def _sounds_secret(variable: Mapping[str, Any]) -> bool:
    return bool(_SECRET_NAME.search(str(variable.get("name", ""))) or _TOKEN.fullmatch(str(variable["value"])))


def _is_key(text: str) -> bool:
    """Whether Base64 holds a private key in DER: a SEQUENCE that begins with a small INTEGER. Certificates do not."""
    packed = re.sub(r"\\n|\s", "", text).rstrip("=").replace("-", "+").replace("_", "/")
    packed = packed[: len(packed) // 4 * 4]
    try:
        content = base64.b64decode(packed[:64])
    except binascii.Error:
        return False
    if len(content) < 12 or content[0] != 0x30:
        return False
    inside = content[2:] if content[1] < 0x80 else content[2 + (content[1] & 0x7F) :]
    return inside[:2] == b"\x02\x01" and inside[2] <= 3
