"""Attestation by projected service-account tokens.

The Kubernetes API server says which pod holds a token, and on which node that pod runs. The agent of a node has the
SPIFFE ID `spiffe://TRUST-DOMAIN/nginx-mesh/agent/k8s.NODE`. A token may be used again while it is valid, so that an
agent which lost its SVID comes back by itself; the SVID that it had is void then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import kubernetes.client
import msgspec

from nginx_mesh.identity.common.client import RefusedError, UnavailableError
from nginx_mesh.identity.common.ids import K8S_PREFIX, agent_spiffe_id
from nginx_mesh.identity.server.upstream.base import UpstreamError
from nginx_mesh.identity.server.upstream.calls import BlockingCalls, quoted
from nginx_mesh.identity.server.upstream.cluster import TIMEOUT, cluster

from .base import Attested

T = TypeVar("T")

_MAX_TOKEN = 16 << 10
_TOKEN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}")
_USER = re.compile(r"system:serviceaccount:([a-z0-9.-]{1,253}):([a-z0-9.-]{1,253})")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
# What the API server says of a token that is bound to a pod; the node since Kubernetes 1.30.
_EXTRA = "authentication.kubernetes.io/"
_HINTS = {
    401: "are its credentials valid?",
    403: "it needs a ClusterRole that allows create of tokenreviews in authentication.k8s.io and get of pods",
}


class _User(msgspec.Struct):
    username: str = ""
    extra: dict[str, list[str]] = {}


class _ReviewStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)
    audiences: list[str] = []
    error: str = ""


class _Review(msgspec.Struct):
    status: _ReviewStatus


class _Metadata(msgspec.Struct):
    uid: str


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _PodSpec


class ProjectedTokens:
    """The NodeAttestor of tokens of these service accounts (`namespace:name`), issued for our `audience`."""

    def __init__(
        self,
        trust_domain: str,
        service_accounts: Sequence[str],
        *,
        audience: str,
        kube_config_file: str | None = None,
    ) -> None:
        self._trust_domain = trust_domain
        self._allowed = frozenset(service_accounts)
        self._audience = audience
        self._kube_config_file = kube_config_file
        self._calls = BlockingCalls("attestation by projected tokens")

    async def attest(self, payload: str) -> Attested:
        """See NodeAttestor."""
        token = payload.strip()
        if len(token) > _MAX_TOKEN or not _TOKEN.fullmatch(token):
            raise RefusedError("this is no service-account token")
        refusals: list[RefusedError] = []

        def judge() -> str:
            try:
                return self._node(token)
            except RefusedError as error:
                refusals.append(error)
                return ""

        try:
            node = await self._calls.run("asking the cluster", judge)
        except UpstreamError as error:
            raise UnavailableError(str(error)) from None
        if refusals:
            raise refusals[0]
        return Attested(str(agent_spiffe_id(self._trust_domain, f"{K8S_PREFIX}{node}")))

    def _node(self, token: str) -> str:
        """The node that the token's holder runs on. Raises RefusedError, UpstreamError."""
        with cluster(self._kube_config_file, "kubeConfigFile", _HINTS) as client:
            status = self._review(client, token)
            if not status.authenticated:
                raise RefusedError(f"the token is not authentic: {quoted(status.error, [token]) or 'no reason given'}")
            if self._audience not in status.audiences:
                raise RefusedError(f"the token is not for the audience {self._audience}")
            user = _USER.fullmatch(status.user.username)
            if user is None:
                raise RefusedError("the token is not that of a service account")
            namespace, name = user.groups()
            if f"{namespace}:{name}" not in self._allowed:
                raise RefusedError(f"the service account {namespace}:{name} is not allowed")
            pod, pod_uid = _extra(status.user, "pod-name"), _extra(status.user, "pod-uid")
            if not pod or not pod_uid:
                raise RefusedError("the token is not bound to a pod: it has to be a projected one")
            node = _extra(status.user, "node-name") or self._node_of(client, namespace, pod, pod_uid)
        if not _NAME.fullmatch(node):
            raise UpstreamError(f"{quoted(node, ())!r} is not the name of a node")
        return node

    def _review(self, client: kubernetes.client.ApiClient, token: str) -> _ReviewStatus:
        spec = kubernetes.client.V1TokenReviewSpec(token=token, audiences=[self._audience])
        answer: Any = kubernetes.client.AuthenticationV1Api(client).create_token_review(
            kubernetes.client.V1TokenReview(api_version="authentication.k8s.io/v1", kind="TokenReview", spec=spec),
            _request_timeout=TIMEOUT,
            _preload_content=False,
        )
        return _decoded(answer.data, _Review, "TokenReview").status

    def _node_of(self, client: kubernetes.client.ApiClient, namespace: str, pod: str, uid: str) -> str:
        """The node of a pod that a token is bound to, for clusters that do not say it with the token."""
        if not _NAME.fullmatch(pod):
            raise UpstreamError(f"{quoted(pod, ())!r} is not the name of a pod")
        try:
            answer: Any = kubernetes.client.CoreV1Api(client).read_namespaced_pod(
                pod, namespace, _request_timeout=TIMEOUT, _preload_content=False
            )
        except kubernetes.client.ApiException as error:
            if error.status == 404:
                raise RefusedError(f"the pod {namespace}/{pod} is gone") from None
            raise
        found = _decoded(answer.data, _Pod, "Pod")
        if found.metadata.uid != uid:
            raise RefusedError(f"the token is that of an earlier pod by the name of {namespace}/{pod}")
        if not found.spec.node_name:
            raise RefusedError(f"the pod {namespace}/{pod} is on no node")
        return found.spec.node_name


def _extra(user: _User, name: str) -> str:
    values = user.extra.get(_EXTRA + name, [])
    return values[0] if len(values) == 1 else ""


def _decoded(data: bytes, type_: type[T], kind: str) -> T:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamError(f"the answer is no {kind}: {error}") from None
