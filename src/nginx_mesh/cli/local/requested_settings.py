"""The settings that a user requests of `local up`: by flags, and by the configuration file of identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.values import format_duration
from nginx_mesh.cli.errors import Failure

if TYPE_CHECKING:
    from nginx_mesh.identity.server.config import IdentityConfig

RESTARTING = frozenset({"upstream_authority", "key_manager", "persistent_storage"})
"""Settings that a daemon only takes when it starts."""


@dataclass(frozen=True)
class RequestedSettings:
    """The settings that were `given`, by name, and the configuration of identity as the mesh keeps it, b"" for none."""

    given: Mapping[str, Any]
    identity: bytes = b""

    def applied_to(self, settings: MeshSettings) -> MeshSettings:
        """Return settings with all that were given."""
        return msgspec.structs.replace(settings, **self.given)

    @property
    def live(self) -> dict[str, Any]:
        """The given settings that a running daemon takes."""
        return {name: value for name, value in self.given.items() if name not in RESTARTING}

    def restarting(self, settings: MeshSettings) -> MeshSettings:
        """Return settings with the given ones that a daemon only takes when it starts."""
        return msgspec.structs.replace(settings, **{n: v for n, v in self.given.items() if n in RESTARTING})


def requested_settings(flags: Mapping[str, tuple[str, Any]], file: Path | None) -> RequestedSettings:
    """Join what was given by flags and by the configuration file of identity.

    `flags` has, by the name of the setting, each flag that was given and its value.
    Raises Failure for a file that is wrong or contradicts a flag.
    """
    given = {name: value for name, (_, value) in flags.items()}
    if file is None:
        return RequestedSettings(given)
    from nginx_mesh.identity.server import config as configuration

    try:
        config = configuration.read_config(file)
        said = configuration.said(config)
    except FieldError as error:
        raise Failure(f"--identity-config: {file}: {error}") from None
    for name, (field, value) in said.items():
        if name in flags and flags[name][1] != value:
            flag, other = flags[name]
            both = f"{flag} {_in_words(other)} and {field}: {_in_words(value)}"
            raise Failure(f"{flag} contradicts {field} in {file} ({both}): leave one of them out")
    return RequestedSettings({**{name: value for name, (_, value) in said.items()}, **given}, _kept(config))


def check_startable(requested: RequestedSettings, settings: MeshSettings, kept: bytes) -> None:
    """Raise Failure unless a daemon can start with these settings and `kept`, the configuration of identity."""
    if not requested.identity and not RESTARTING & requested.given.keys():
        return
    from nginx_mesh.identity.server.config import IdentityConfig
    from nginx_mesh.identity.server.config import check as check_config

    text = requested.identity or kept
    config = msgspec.json.decode(text, type=IdentityConfig) if text else IdentityConfig()
    try:
        check_config(config, settings)
    except FieldError as error:
        raise Failure(str(error)) from None


def _kept(config: IdentityConfig) -> bytes:
    """Return the configuration as the mesh keeps it: without the settings, which are kept with the mesh's others."""
    from nginx_mesh.identity.server.config import MtlsSection

    return msgspec.json.encode(msgspec.structs.replace(config, mtls=MtlsSection()))


def _in_words(value: Any) -> str:
    if isinstance(value, int):
        return format_duration(value)
    return value if isinstance(value, str) else "another file"
