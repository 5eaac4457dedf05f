"""How a workload stands with its SVID, for people to see. No key is in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SvidStatus:
    """The names of a workload, and its SVID if it has one.

    `serial` and `issuer` (a key identifier) are hexadecimal, times are Unix seconds; `renew_at` is 0 where the provider
    does not tell. `bundle` has the key identifiers of the roots. `problem` is why the SVID that is due was refused, as
    far as that is known.
    """

    spiffe_id: str
    dns_names: tuple[str, ...]
    serial: str = ""
    issuer: str = ""
    not_before: float = 0.0
    not_after: float = 0.0
    renew_at: float = 0.0
    bundle: tuple[str, ...] = ()
    problem: str = ""
