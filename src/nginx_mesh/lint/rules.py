"""The rules by their codes. A code never changes its meaning, because people use it in their pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from nginx_mesh.api.meta import ObjectKey

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A mistake that manifests may contain: what it is (`title`), and what to do about it (`remedy`).

    A mesh refuses an object with an `error`. It accepts one with a `warning`, but a part of the object has no effect.
    An `info` is about an object that works as written, though that may not be what its author intended.
    """

    code: str
    severity: Severity
    title: str
    remedy: str

    def at(self, key: ObjectKey, field: str, message: str) -> Finding:
        """The finding that a field of an object breaks this rule."""
        return Finding(self, str(key), field, message)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that an object breaks.

    `object` is "Kind namespace/name", as far as that is known. `file` and `document`, its position there from 1, are
    filled in by the linter.
    """

    rule: Rule
    object: str
    field: str
    message: str
    file: str = ""
    document: int = 0


Findings = Iterator[Finding]

RULES: Final[dict[str, Rule]] = {}
"""Every rule by its code."""


def _rule(code: str, severity: Severity, title: str, remedy: str) -> Rule:
    return RULES.setdefault(code, Rule(code, severity, title, remedy))


# Documents and objects.
UNREADABLE = _rule("NM0001", "error", "A document or an object cannot be read", "Correct it: nothing of it is applied.")
INVALID = _rule("NM0002", "error", "A field has a value that is refused", "Correct it: the object is not applied.")
INVALID_METADATA = _rule(
    "NM0003",
    "error",
    "A label or annotation of the mesh has a value that is refused",
    "Use a value that docs/reference/annotations.md lists.",
)
DUPLICATE = _rule("NM0004", "error", "The same object is given twice", "Remove or rename one of them.")
MISSING_OBJECT = _rule(
    "NM0005",
    "warning",
    "An object that is needed is not among those given",
    "Check the name, or give its manifest as well; an apply is refused while it is not in the mesh.",
)

# Labels and annotations.
UNKNOWN_METADATA = _rule(
    "NM0101", "warning", "The mesh knows no such label or annotation", "Check the spelling; it does nothing."
)
MISPLACED_METADATA = _rule(
    "NM0102",
    "warning",
    "A label or annotation is on an object where the mesh does not read it",
    "Move it; for pods of a workload it belongs into spec.template.metadata.",
)
OVERRULED_MODE = _rule(
    "NM0103", "info", "A pod's own mTLS mode is ignored, as the mesh is strict", "Remove the annotation."
)
INEFFECTIVE = _rule(
    "NM0110", "warning", "The mesh ignores a part of an object", "Correct it; until then it grants or limits nothing."
)

# Routes.
SHADOWED = _rule(
    "NM0201",
    "warning",
    "An earlier match already covers everything that a match covers",
    "Remove the match, or narrow the earlier one.",
)
UNANCHORED = _rule(
    "NM0202",
    "info",
    "A pathRegex matches anywhere in the path",
    'Begin it with "^" if it is meant for the beginning, or with ".*" to say that it is not.',
)
NEVER_MATCHES = _rule(
    "NM0203", "warning", "A match can never hold", 'Paths begin with "/"; methods are in upper case, as they are sent.'
)
UNUSED_ROUTE = _rule("NM0204", "info", "No policy refers to a route", "Remove it, or refer to it.")
UNKNOWN_ROUTE = _rule(
    "NM0205", "warning", "A policy names a route or a match that is not there", "Check the name and the namespace."
)
WRONG_PROTOCOL = _rule(
    "NM0206",
    "warning",
    "The routes of a policy do not fit the protocol of what it applies to",
    "Use an HTTPRouteGroup for HTTP and gRPC ports, a TCPRoute for TCP; name the port to say which it is.",
)

# Access control.
TARGET_SELECTS_NOTHING = _rule(
    "NM0301", "warning", "A TrafficTarget protects no pod", "Check the service account's name and namespace."
)
SOURCE_SELECTS_NOTHING = _rule(
    "NM0302", "warning", "No pod has the account that is granted access", "Check the account's name and namespace."
)
NO_SUCH_PORT = _rule(
    "NM0303", "warning", "No pod that is protected declares the port", "Use the container's port, not the Service's."
)
NO_SIDECAR = _rule(
    "NM0304",
    "warning",
    "A policy needs a sidecar where there is none",
    "Have sidecars injected: label the namespace injector.nsm.nginx.com/auto-inject: enabled.",
)
NO_SOURCES = _rule(
    "NM0305",
    "warning",
    "A TrafficTarget has no sources",
    "Name who may call: without sources nobody may.",
)

# Traffic splits.
NO_WEIGHT = _rule(
    "NM0401", "warning", "All weights of a split are 0", "Give a backend weight; now everything goes to the root."
)
NO_BACKEND = _rule("NM0402", "warning", "A backend's Service is not there", "Check the name; it gets no requests.")
NO_ROOT = _rule("NM0403", "warning", "A split's root Service is not there", "Check the name: nobody can call it.")
EMPTY_BACKEND = _rule(
    "NM0404", "warning", "A backend that has weight selects no pod", "Check the selector; others get its requests."
)
TWO_SPLITS = _rule("NM0405", "warning", "Two splits have the same root", "Keep one: the older one applies.")
NESTED_SPLIT = _rule(
    "NM0406",
    "info",
    "A backend is the root of another split",
    "That split does not apply to requests that this one sends.",
)

# Rate limits.
LIMIT_SELECTS_NOTHING = _rule("NM0501", "warning", "A rate limit's destination selects no pod", "Check its name.")
LIMIT_WITHOUT_SOURCE = _rule(
    "NM0502", "warning", "A rate limit's source is no pod", "Check the name and the namespace."
)
DUPLICATE_LIMIT = _rule(
    "NM0503", "error", "Two rate limits have the same destination and source", "Keep one: the second is refused."
)
NO_BURST = _rule(
    "NM0504",
    "info",
    "A rate limit has no burst",
    "Requests closer together than the rate's interval are refused; give burst to allow for jitter.",
)
LIMIT_OF_TCP = _rule(
    "NM0505", "warning", "A rate limit applies to TCP only", "Only HTTP and gRPC requests are limited."
)

# Circuit breakers.
NO_BREAKER_SERVICE = _rule(
    "NM0601", "warning", "A circuit breaker's Service or its fallback is not there", "Check the name and the port."
)
WRONG_FALLBACK = _rule(
    "NM0602",
    "error",
    "A fallback cannot stand in for the destination",
    "Use another Service in the namespace of the destination.",
)
TWO_BREAKERS = _rule(
    "NM0603", "warning", "Two circuit breakers have the same destination", "Keep one: the older one applies."
)
NO_FALLBACK = _rule(
    "NM0604",
    "info",
    "A circuit breaker without a fallback protects a Service with a single pod",
    "While it is open there is nobody to answer: add a fallback or a replica.",
)

# The mesh.
NOT_STRICT = _rule(
    "NM0701", "info", "Plaintext is accepted", "In production use mtls.mode strict, once every caller has a sidecar."
)
ALLOWS_ALL = _rule(
    "NM0702",
    "info",
    "Calls that no policy covers are allowed",
    "In production use accessControlMode deny, and a TrafficTarget for each pair of workloads that call each other.",
)
