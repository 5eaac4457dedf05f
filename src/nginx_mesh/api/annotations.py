"""Labels and annotations through which users steer the mesh.

The functions read one of them out of an object's labels or annotations. They raise FieldError, the field being the key;
what is absent is None, or false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, cast, get_args

from .errors import FieldError, located
from .spiffe import SpiffeId, SpiffeIdError
from .values import LbMethod, MtlsMode, parse_boolean, parse_choice, parse_ports, parse_size

T = TypeVar("T")

AUTO_INJECT = "injector.nsm.nginx.com/auto-inject"
ENABLE_INGRESS = "nsm.nginx.com/enable-ingress"
ENABLE_EGRESS = "nsm.nginx.com/enable-egress"
# Followed by the owner's kind in lower case.
OWNER_PREFIX = "nsm.nginx.com/"
SPIFFE_ID = "spiffe.io/spiffeid"

MTLS_MODE = "config.nsm.nginx.com/mtls-mode"
CLIENT_MAX_BODY_SIZE = "config.nsm.nginx.com/client-max-body-size"
IGNORE_INCOMING_PORTS = "config.nsm.nginx.com/ignore-incoming-ports"
IGNORE_OUTGOING_PORTS = "config.nsm.nginx.com/ignore-outgoing-ports"
DEFAULT_EGRESS_ALLOWED = "config.nsm.nginx.com/default-egress-allowed"
LB_METHOD = "config.nsm.nginx.com/lb-method"
PEER_SPIFFE_ID = "config.nsm.nginx.com/peer-spiffe-id"
INTERNAL_ROUTE = "nsm.nginx.com/internal-route"
STATUS = "injector.nsm.nginx.com/status"
PROBES = "injector.nsm.nginx.com/probes"
INJECTED = "injected"

# The containers that the injector adds to a pod.
INIT_CONTAINER = "nginx-mesh-init"
SIDECAR_CONTAINER = "nginx-mesh-sidecar"

# Besides those of the annotation: DNS, metrics, and the sidecar's ports for health checks.
ALWAYS_IGNORED_INCOMING_PORTS = (53, 8887, 8895, 8896)

# Why a Service with a selector has no use for PEER_SPIFFE_ID.
NO_PEER_OF_PODS = "is for services without a selector: pods prove the identities of their service accounts"

AutoInject = Literal["enabled", "disabled"]


def auto_inject(labels: Mapping[str, str]) -> AutoInject | None:
    """What a Namespace's or a Pod's labels say of automatic injection."""
    return cast("AutoInject | None", _choice(labels, AUTO_INJECT, get_args(AutoInject)))


def wants_injection(pod_labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
    """Whether labels ask for a sidecar: a Pod's win over its Namespace's. No, unless they say enabled."""
    return pod_labels.get(AUTO_INJECT, namespace_labels.get(AUTO_INJECT)) == "enabled"


def is_ingress(labels: Mapping[str, str]) -> bool:
    """Whether a Pod is an ingress gateway."""
    return bool(_read(labels, ENABLE_INGRESS, parse_boolean))


def is_egress(labels: Mapping[str, str]) -> bool:
    """Whether a Pod is an egress gateway."""
    return bool(_read(labels, ENABLE_EGRESS, parse_boolean))


def mtls_mode(annotations: Mapping[str, str]) -> MtlsMode | None:
    """A Pod's own mTLS mode."""
    return cast("MtlsMode | None", _choice(annotations, MTLS_MODE, get_args(MtlsMode)))


def client_max_body_size(annotations: Mapping[str, str]) -> int | None:
    """A Pod's own limit for request bodies in bytes; 0 means no limit."""
    return _read(annotations, CLIENT_MAX_BODY_SIZE, parse_size)


def ignore_incoming_ports(annotations: Mapping[str, str]) -> tuple[int, ...]:
    """Ports of a Pod whose incoming connections bypass the sidecar."""
    return _read(annotations, IGNORE_INCOMING_PORTS, parse_ports) or ()


def ignore_outgoing_ports(annotations: Mapping[str, str]) -> tuple[int, ...]:
    """Ports to which a Pod's outgoing connections bypass the sidecar, besides 53."""
    return _read(annotations, IGNORE_OUTGOING_PORTS, parse_ports) or ()


def default_egress_allowed(annotations: Mapping[str, str]) -> bool:
    """Whether a Pod's calls to what is not in the mesh go through the egress gateway."""
    return bool(_read(annotations, DEFAULT_EGRESS_ALLOWED, parse_boolean))


def lb_method(annotations: Mapping[str, str]) -> LbMethod | None:
    """A Service's own load balancing method."""
    return cast("LbMethod | None", _choice(annotations, LB_METHOD, get_args(LbMethod)))


def peer_spiffe_id(annotations: Mapping[str, str]) -> str | None:
    """The SPIFFE ID that the endpoints of a Service without a selector prove."""
    return _read(annotations, PEER_SPIFFE_ID, _workload_id)


def internal_route(annotations: Mapping[str, str]) -> bool:
    """Whether an Ingress is a route for the egress gateway."""
    return bool(_read(annotations, INTERNAL_ROUTE, parse_boolean))


def is_injected(annotations: Mapping[str, str]) -> bool:
    """Whether the injector has given this Pod its sidecar."""
    return annotations.get(STATUS) == INJECTED


_POD_LABELS: tuple[Callable[[Mapping[str, str]], object], ...] = (auto_inject, is_ingress, is_egress)
_POD_ANNOTATIONS: tuple[Callable[[Mapping[str, str]], object], ...] = (
    mtls_mode,
    client_max_body_size,
    ignore_incoming_ports,
    ignore_outgoing_ports,
    default_egress_allowed,
)


def check_pod(labels: Mapping[str, str], annotations: Mapping[str, str]) -> list[FieldError]:
    """What is wrong with a Pod's labels and annotations; fields are paths inside its metadata."""
    return [
        *_errors("labels", _POD_LABELS, labels),
        *_errors("annotations", _POD_ANNOTATIONS, annotations),
    ]


def check_namespace(labels: Mapping[str, str]) -> list[FieldError]:
    """What is wrong with a Namespace's labels."""
    return _errors("labels", (auto_inject,), labels)


def check_service(annotations: Mapping[str, str]) -> list[FieldError]:
    """What is wrong with a Service's annotations."""
    return _errors("annotations", (lb_method, peer_spiffe_id), annotations)


def _read(values: Mapping[str, str], key: str, parse: Callable[[str], T]) -> T | None:
    text = values.get(key)
    with located(key):
        return None if text is None else parse(text)


def _workload_id(text: str) -> str:
    try:
        spiffe_id = SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise FieldError("", str(error)) from None
    if not spiffe_id.path:
        raise FieldError("", f'"{text}" is of a trust domain, not of a workload in it')
    return text


def _choice(values: Mapping[str, str], key: str, choices: tuple[str, ...]) -> str | None:
    return _read(values, key, lambda text: parse_choice(text, choices))


def _errors(
    field: str, readers: tuple[Callable[[Mapping[str, str]], object], ...], values: Mapping[str, str]
) -> list[FieldError]:
    errors = []
    for read in readers:
        try:
            read(values)
        except FieldError as error:
            errors.append(FieldError(f"{field}[{error.field}]", error.reason))
    return errors
