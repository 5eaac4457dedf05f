"""The certificate authority and its rotation, free of I/O: the time is an argument, in Unix seconds.

A CA lives through three states. As `next` its certificate is in the bundle but it signs nothing, so that every
verifier knows it before the first SVID under it appears. As `current` it signs. As `old` its key is gone, and its
certificate stays in the bundle until it expires, as no SVID outlives the CA that signed it.

    created ─────────── half its life ────── 5/6 ────── expiry
    current │ signs      │ prepares next      │ old      │ leaves the bundle

Long-lived CAs prepare their successor no sooner than 30 days, and hand over no sooner than 7 days, before they expire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cryptography import x509

from .keys import KEY_TYPES, KeyType, PrivateKey, PublicKey, generate_key, key_type_of
from .spiffe import SpiffeId
from .x509svid import CLOCK_SKEW, Signer, SvidError, issue_authority, issue_svid, spiffe_id_of

_DAY = 24 * 3600
_PREPARE_AT_MOST = 30 * _DAY
_ACTIVATE_AT_MOST = 7 * _DAY

MIN_TTL = 10
MAX_TTL = 999_999 * 3600


@dataclass(frozen=True)
class CaSettings:
    """What the next CA shall be. `ttl` is seconds. Raises ValueError (SpiffeIdError for the trust domain)."""

    trust_domain: str
    key_type: KeyType
    ttl: int

    def __post_init__(self) -> None:
        SpiffeId(self.trust_domain)
        if self.key_type not in KEY_TYPES:
            raise ValueError(f"CA key type {self.key_type!r} is not one of {', '.join(KEY_TYPES)}")
        if not MIN_TTL <= self.ttl <= MAX_TTL:
            raise ValueError(f"CA TTL of {self.ttl} s is not between {MIN_TTL} s and {MAX_TTL} s")


@dataclass(frozen=True, eq=False)
class Authority:
    """One CA. `key` is None once it is old. Times are Unix seconds; `activate_at` is when it may start to sign."""

    certificate: x509.Certificate
    key: PrivateKey | None
    created_at: int
    activate_at: float

    @cached_property
    def not_before(self) -> float:
        """Start of the certificate's validity: before `created_at`, for verifiers whose clock is behind."""
        return self.certificate.not_valid_before_utc.timestamp()

    @cached_property
    def not_after(self) -> float:
        """The last second of the certificate's validity."""
        return self.certificate.not_valid_after_utc.timestamp()

    @property
    def expires_at(self) -> float:
        """The first instant at which no verifier takes the certificate: X.509 validity includes its last second."""
        return self.not_after + 1

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
        """The CA as what signs. Only for one that still has its key."""
        if self.key is None:
            raise SvidError("this CA is retired: its key is gone")
        return Signer(self.certificate, self.key)

    @cached_property
    def trust_domain(self) -> str:
        """The trust domain that the certificate names."""
        return spiffe_id_of(self.certificate).trust_domain

    def retired(self) -> Authority:
        """The same CA without its key."""
        return replace(self, key=None)

    def successor_activates_at(self, now: float) -> float:
        """When a successor published at `now` starts to sign.

        At 5/6 of this CA's life; if `now` is already near or past that (nobody was there to prepare it in time), after
        half of what is left, so that verifiers get as long as possible to learn of it.
        """
        handover = min(self.life / 6, _ACTIVATE_AT_MOST)
        return max(self.not_after - handover, now + min(handover, (self.not_after - now) / 2))


@dataclass(frozen=True)
class AuthoritySet:
    """All the CAs of a trust domain: the whole state of a CertificateAuthority."""

    current: Authority | None = None
    next: Authority | None = None
    old: tuple[Authority, ...] = ()


class CertificateAuthority:
    """Signs SVIDs and rotates its CAs. `settings` may be replaced at any time: they apply to the next CA.

    Call `advance` at `next_event`; when it returns True, keep `authorities` somewhere safe and publish `bundle`.
    """

    def __init__(
        self,
        settings: CaSettings,
        authorities: AuthoritySet | None = None,
        new_key: Callable[[KeyType], PrivateKey] = generate_key,
    ) -> None:
        self.settings = settings
        self.authorities = authorities or AuthoritySet()
        self._new_key = new_key

    @property
    def current(self) -> Authority | None:
        """The CA that signs."""
        return self.authorities.current

    def bundle(self) -> tuple[x509.Certificate, ...]:
        """Every root to trust, oldest first: a CA that changes its state does not change the bundle."""
        state = self.authorities
        every = [a for a in (state.current, state.next, *state.old) if a is not None]
        every.sort(key=lambda a: (a.created_at, a.certificate.serial_number))
        return tuple(a.certificate for a in every)

    def usable(self, now: float) -> bool:
        """Whether SVIDs can be issued at `now`: there is a current CA, valid now, of the configured trust domain."""
        current = self.authorities.current
        return (
            current is not None
            and current.not_before <= now < current.not_after
            and current.trust_domain == self.settings.trust_domain
        )

    def issue(
        self, public_key: PublicKey, spiffe_id: SpiffeId, dns_names: Sequence[str], ttl: int, now: float
    ) -> x509.Certificate:
        """An SVID that lives `ttl` seconds from `now`, or as long as the current CA if that is less.

        Raises SvidError, also when there is no usable CA (then `advance` first).
        """
        current = self.authorities.current
        if current is None or not self.usable(now):
            raise SvidError("there is no valid CA to issue from")
        serial = x509.random_serial_number()
        return issue_svid(current.signer, public_key, spiffe_id, dns_names, now - CLOCK_SKEW, now + ttl, serial)

    def next_event(self, now: float) -> float:
        """When `advance` has something to do next; at or before `now` if it has right now."""
        state = self.authorities
        if state.current is None or not self.usable(now):
            return now
        events = [state.current.not_after, *(a.expires_at for a in state.old)]
        if state.next is None:
            events.append(state.current.prepare_next_at)
        else:
            events.append(now if self._outdated(state.next, now) else state.next.activate_at)
        return min(events)

    def advance(self, now: float) -> bool:
        """Bring the CAs to where they belong at `now`; whether anything changed.

        However long nobody called, and wherever the clock was set, there is a usable CA afterwards. It may have come
        without notice, but only if the previous one can no longer be used.
        """
        before = self.authorities
        current, upcoming = before.current, before.next
        old = [a for a in before.old if now < a.expires_at]
        if upcoming is not None and self._outdated(upcoming, now):
            upcoming = None
        if current is None or not self.usable(now):
            if current is not None and now < current.expires_at:
                old.insert(0, current.retired())
            current, upcoming = upcoming or self._create(now, activate_at=now), None
        if upcoming is not None and now >= upcoming.activate_at:
            old.insert(0, current.retired())
            current, upcoming = upcoming, None
        if upcoming is None and now >= current.prepare_next_at:
            upcoming = self._create(now, activate_at=current.successor_activates_at(now))
        after = AuthoritySet(current, upcoming, tuple(old))
        if after == before:
            return False
        self.authorities = after
        return True

    def _outdated(self, upcoming: Authority, now: float) -> bool:
        """Whether a prepared CA, which never signed, is not what we would prepare now.

        Settings changed, it expired, or it is from the future (the clock went back).
        """
        wanted = self.settings
        return (
            not upcoming.not_before <= now < upcoming.not_after
            or upcoming.trust_domain != wanted.trust_domain
            or key_type_of(upcoming.key) != wanted.key_type
            or upcoming.life != wanted.ttl
        )

    def _create(self, now: float, activate_at: float) -> Authority:
        created_at = int(now)
        key = self._new_key(self.settings.key_type)
        certificate = issue_authority(
            key,
            self.settings.trust_domain,
            not_before=created_at - CLOCK_SKEW,
            not_after=created_at + self.settings.ttl,
            serial=x509.random_serial_number(),
        )
        return Authority(certificate, key, created_at, activate_at)
