"""What only the control plane knows for a support package: the states of sidecars, as they were compiled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import orjson

from nginx_mesh.protocol.standing import SidecarReport
from nginx_mesh.protocol.state import Settings
from nginx_mesh.support.redaction import redacted

from .plane import Plane

# What no other sidecar has.
_OWN = ("settings", "inbound/", "probe/")


def states(plane: Plane, sidecars: Iterable[SidecarReport]) -> Iterator[bytes]:
    """Lines of JSON, `{"name", "content"}`: each sidecar's own entries, and once for each mTLS mode the others."""
    told: set[str] = set()
    for sidecar in sidecars:
        state = plane.state(sidecar.pod)
        settings = state.get("settings")
        if not isinstance(settings, Settings):
            continue
        own = {key: entry for key, entry in state.items() if key.startswith(_OWN)}
        pod = sidecar.pod
        yield _line(f"pods/{pod.namespace}/{pod.name}/state.json", own)
        if settings.mtls_mode not in told:
            told.add(settings.mtls_mode)
            shared = {key: entry for key, entry in state.items() if key not in own}
            yield _line(f"states/{settings.mtls_mode}.json", shared)


def _line(name: str, entries: dict[str, Any]) -> bytes:
    content = json.loads(msgspec.json.encode(entries))
    return orjson.dumps({"name": name, "content": redacted(content)}) + b"\n"
