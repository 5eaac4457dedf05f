"""What only the control plane knows for a support package: the states of sidecars, as they were compiled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import orjson

from nginx_mesh.protocol.state import Settings
from nginx_mesh.support.redaction import redacted

from .interfaces import Sidecars
from .plane import Plane

# Entries that belong to one sidecar alone.
_OWN = ("settings", "inbound/", "probe/")


def states(plane: Plane, sidecars: Sidecars) -> Iterator[bytes]:
    """Lines of JSON, `{"name", "content"}`: each sidecar's own entries, and once for each mTLS mode the shared ones."""
    told: set[str] = set()
    for sidecar in sidecars.all():
        state = plane.state(sidecar.pod)
        settings = state.get("settings")
        if not isinstance(settings, Settings):
            continue
        own: dict[str, Any] = {key: entry for key, entry in state.items() if key.startswith(_OWN)}
        pod = sidecar.pod
        if (identity := sidecars.public_identity(pod)) is not None:
            own["identity"] = identity
        yield _line(f"pods/{pod.namespace}/{pod.name}/state.json", own)
        if settings.mtls_mode not in told:
            told.add(settings.mtls_mode)
            shared = {key: entry for key, entry in state.items() if key not in own}
            yield _line(f"states/{settings.mtls_mode}.json", shared)


def _line(name: str, entries: Mapping[str, Any]) -> bytes:
    content = json.loads(msgspec.json.encode(entries))
    return orjson.dumps({"name": name, "content": redacted(content)}) + b"\n"
