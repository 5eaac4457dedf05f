"""What `local up` is told about the mesh's settings: by flags, and by the configuration file of identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.values import format_duration

from .failure import Failure

if TYPE_CHECKING:
    from nginx_mesh.identity.config import IdentityConfig

RESTARTING = frozenset({"upstream_authority", "key_manager", "persistent_storage"})
"""Settings whose change needs another daemon."""


@dataclass(frozen=True)
class Wanted:
    """What was said: `given` settings by name, and the configuration of identity as it is kept, b"" for none."""

    given: Mapping[str, Any]
    identity: bytes = b""

    def applied(self, settings: MeshSettings) -> MeshSettings:
        """Settings with all that was said."""
        return msgspec.structs.replace(settings, **self.given)

    @property
    def live(self) -> dict[str, Any]:
        """What a running daemon takes."""
        return {name: value for name, value in self.given.items() if name not in RESTARTING}

    def restarting(self, settings: MeshSettings) -> MeshSettings:
        """Settings with what needs another daemon."""
        return msgspec.structs.replace(settings, **{n: v for n, v in self.given.items() if n in RESTARTING})


def wanted(flags: Mapping[str, tuple[str, Any]], file: Path | None) -> Wanted:
    """What was said; `flags` are those that were given: by the setting's name, the flag and its value.

    Raises Failure for a file that is wrong or contradicts a flag.
    """
    given = {name: value for name, (_, value) in flags.items()}
    if file is None:
        return Wanted(given)
    from nginx_mesh.identity import config as configuration

    try:
        config = configuration.read_config(file)
        said = configuration.said(config)
    except FieldError as error:
        raise Failure(f"--identity-config: {file}: {error}") from None
    for name, (field, value) in said.items():
        if name in flags and flags[name][1] != value:
            flag, other = flags[name]
            both = f"{flag} {_words(other)} and {field}: {_words(value)}"
            raise Failure(f"{flag} contradicts {field} in {file} ({both}): leave one of them out")
    return Wanted({**{name: value for name, (_, value) in said.items()}, **given}, _kept(config))


def check(wanted: Wanted, settings: MeshSettings, kept: bytes) -> None:
    """Raise Failure unless a daemon can start with these settings and `kept`, the configuration of identity."""
    if not wanted.identity and not RESTARTING & wanted.given.keys():
        return
    from nginx_mesh.identity.config import IdentityConfig
    from nginx_mesh.identity.config import check as check_config

    text = wanted.identity or kept
    config = msgspec.json.decode(text, type=IdentityConfig) if text else IdentityConfig()
    try:
        check_config(config, settings)
    except FieldError as error:
        raise Failure(str(error)) from None


def _kept(config: IdentityConfig) -> bytes:
    """The file's own part: what it says of settings is kept with them."""
    from nginx_mesh.identity.config import MtlsSection

    return msgspec.json.encode(msgspec.structs.replace(config, mtls=MtlsSection()))


def _words(value: Any) -> str:
    if isinstance(value, int):
        return format_duration(value)
    return value if isinstance(value, str) else "another file"
