"""The CAs of one identity server and their rotation, free of I/O: the time is an argument, in Unix seconds.

A CA lives through two states. As `next` its root is in the trust bundle but it signs nothing, so that every verifier
knows the root before the first SVID under it appears. As `current` it signs. Then its key is destroyed; its root stays
in the bundle until it expires, as no SVID outlives the CA that signed it.

    created ─────────── half its life ────── 5/6 ────── expiry
    current │ signs      │ prepares next      │ key gone │ root leaves the bundle

Long-lived CAs prepare their successor no sooner than 30 days, and hand over no sooner than 7 days, before they expire.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property

from cryptography import x509

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.keys import KEY_TYPES, KeyType, PrivateKey, key_type_of
from nginx_mesh.identity.common.x509svid import Signer, spiffe_id_of, subject_key_id

_DAY = 24 * 3600
_PREPARE_AT_MOST = 30 * _DAY
_ACTIVATE_AT_MOST = 7 * _DAY

MIN_TTL = 10
MAX_TTL = 999_999 * 3600


@dataclass(frozen=True)
class CaSettings:
    """How the next CA is to be made. `ttl` is seconds. Raises ValueError (SpiffeIdError for the trust domain).

    `upstream` tells one configuration of an upstream authority from another; "" means a self-signed CA.
    """

    trust_domain: str
    key_type: KeyType
    ttl: int
    upstream: str = ""

    def __post_init__(self) -> None:
        SpiffeId(self.trust_domain)
        if self.key_type not in KEY_TYPES:
            raise ValueError(f"CA key type {self.key_type!r} is not one of {', '.join(KEY_TYPES)}")
        if not MIN_TTL <= self.ttl <= MAX_TTL:
            raise ValueError(f"CA TTL of {self.ttl} s is not between {MIN_TTL} s and {MAX_TTL} s")


@dataclass(frozen=True, eq=False)
class Ca:
    """A CA: its certificate, the intermediates above it (none when it is self-signed), its key, and its JWT key.

    Times are Unix seconds. The CA may sign from `activate_at` on. It was made with `settings`. `limit` is when its root
    expires, if that is sooner than its chain. With `retires_previous`, the SVIDs of its predecessor are replaced early
    once it signs.
    """

    certificate: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)
    jwt_key: PrivateKey = field(repr=False)
    settings: CaSettings
    created_at: int
    activate_at: float
    limit: float = float("inf")
    retires_previous: bool = False

    @cached_property
    def ca_id(self) -> str:
        """The subject key identifier in hexadecimal, by which SVIDs name their issuer."""
        return subject_key_id(self.certificate)

    @cached_property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What SVIDs carry besides their own certificate: nothing under a root, else the CA and its intermediates."""
        return (self.certificate, *self.intermediates) if self.settings.upstream else ()

    @cached_property
    def not_before(self) -> float:
        """The start of the certificate's validity. It is before `created_at`, for verifiers whose clock is behind."""
        return self.certificate.not_valid_before_utc.timestamp()

    @cached_property
    def not_after(self) -> float:
        """The last second of the validity of the CA and all that is above it in its chain."""
        chain = (self.certificate, *self.intermediates)
        return min(self.limit, *(certificate.not_valid_after_utc.timestamp() for certificate in chain))

    @property
    def life(self) -> float:
        """Seconds from creation to expiry."""
        return self.not_after - self.created_at

    @property
    def prepare_next_at(self) -> float:
        """When the successor is made and published."""
        return self.not_after - min(self.life / 2, _PREPARE_AT_MOST)

    @cached_property
    def signer(self) -> Signer:
        """The CA as the signer of SVIDs, which outlive no certificate above them."""
        return Signer(self.certificate, self.key, self.not_after)

    @cached_property
    def trust_domain(self) -> str:
        """The trust domain that the certificate names."""
        return spiffe_id_of(self.certificate).trust_domain

    def valid(self, now: float) -> bool:
        """Whether verifiers take its certificate at `now`."""
        return self.not_before <= now < self.not_after

    def successor_activates_at(self, now: float) -> float:
        """When a successor published at `now` starts to sign.

        At 5/6 of this CA's life; if `now` is already near or past that (nobody was there to prepare it in time), after
        half of what is left, so that verifiers get as long as possible to learn of it.
        """
        return max(self.not_after - self._handover, self.soonest_handover(now))

    def soonest_handover(self, now: float) -> float:
        """When a successor published at `now` may sign if it shall do so before its time."""
        return now + min(self._handover, (self.not_after - now) / 2)

    @property
    def _handover(self) -> float:
        return min(self.life / 6, _ACTIVATE_AT_MOST)


@dataclass(frozen=True)
class Retired:
    """A CA that signs no more and whose SVIDs are to be replaced, until it expires (Unix seconds)."""

    ca_id: str
    until: float


@dataclass(frozen=True)
class CaSet:
    """The CAs of one server."""

    current: Ca | None = None
    next: Ca | None = None
    retired: tuple[Retired, ...] = ()


class Step(enum.Enum):
    """One step of the rotation of a set of CAs."""

    PREPARE = "make the next CA and publish its root"
    ACTIVATE = "let the next CA sign"
    DISCARD = "drop the next CA, which never signed"


def usable(ca: Ca | None, settings: CaSettings, now: float) -> bool:
    """Whether a CA can sign at `now`: it exists, is valid, and is of the configured trust domain."""
    return ca is not None and ca.valid(now) and ca.trust_domain == settings.trust_domain


def next_step(cas: CaSet, settings: CaSettings, now: float) -> Step | None:
    """The step to take at `now`, None for none. After each step there may be another.

    However long nobody called, and wherever the clock was set, the steps lead to a usable CA. Only when the previous CA
    can no longer be used does it sign before verifiers had time to learn its root.
    """
    if cas.next is not None and _outdated(cas.next, settings, now):
        return Step.DISCARD
    if not usable(cas.current, settings, now):
        return Step.PREPARE if cas.next is None else Step.ACTIVATE
    assert cas.current is not None  # noqa: S101 - it is usable
    if cas.next is not None:
        return Step.ACTIVATE if now >= cas.next.activate_at else None
    # Under another upstream authority verifiers need other roots, so the next CA is prepared at once.
    moved = cas.current.settings.upstream != settings.upstream
    return Step.PREPARE if moved or now >= cas.current.prepare_next_at else None


def activated(cas: CaSet, now: float) -> CaSet:
    """The set after its next CA began to sign. Raises ValueError when there is none."""
    previous, upcoming = cas.current, cas.next
    if upcoming is None:
        raise ValueError("no CA is prepared")
    retired = tuple(each for each in cas.retired if now <= each.until)
    moved = previous is not None and previous.settings.upstream != upcoming.settings.upstream
    if previous is not None and (moved or upcoming.retires_previous) and now <= previous.not_after:
        retired += (Retired(previous.ca_id, previous.not_after),)
    return CaSet(upcoming, None, retired)


def activation(cas: CaSet, settings: CaSettings, now: float) -> float:
    """When a CA that is prepared at `now` may sign."""
    current = cas.current
    if current is None or not usable(current, settings, now):
        return now
    if current.settings.upstream != settings.upstream:
        return current.soonest_handover(now)
    return current.successor_activates_at(now)


def _outdated(upcoming: Ca, wanted: CaSettings, now: float) -> bool:
    """Whether a prepared CA, which never signed, is another than would be prepared now.

    This is so when settings changed, when it expired, and when the clock went back to before its validity.
    """
    return not upcoming.valid(now) or upcoming.settings != wanted or key_type_of(upcoming.key) != wanted.key_type
