"""A Kubernetes API server for TokenReviews and pods: ours, over HTTPS, as the API reference and KEP-1205 say."""

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.unit.identity.server.kubernetes import KubernetesServer, no_such_resource, status

AUDIENCE = "nginx-mesh-identity"
EXTRA = "authentication.kubernetes.io/"


@dataclass
class ApiServer(KubernetesServer):
    """What the server knows, and what a test makes it do wrong."""

    tokens: dict[str, tuple[list[str], dict[str, Any]]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    tells_nodes: bool = True
    knows_audiences: bool = True
    answer: Any = None
    answer_status: int = 201

    def token(
        self,
        node: str = "worker-1",
        account: str = "nginx-mesh:agent",
        *,
        audiences: tuple[str, ...] = (AUDIENCE,),
        pod: str = "agent-x7",
        bound: bool = True,
    ) -> str:
        """A token as the kubelet projects it into a pod."""
        namespace, _, name = account.partition(":")
        uid = secrets.token_hex(8)
        extra: dict[str, list[str]] = {EXTRA + "credential-id": ["JTI=1"]}
        if bound:
            extra |= {EXTRA + "pod-name": [pod], EXTRA + "pod-uid": [uid]}
            if self.tells_nodes:
                extra |= {EXTRA + "node-name": [node], EXTRA + "node-uid": ["n-1"]}
            self.pods[f"{namespace}/{pod}"] = {"metadata": {"uid": uid, "name": pod}, "spec": {"nodeName": node}}
        user = {"username": f"system:serviceaccount:{namespace}:{name}", "uid": "1", "groups": [], "extra": extra}
        header = base64.urlsafe_b64encode(b'{"alg":"RS256"}').decode().rstrip("=")
        token = f"{header}.{secrets.token_hex(20)}.{secrets.token_urlsafe(32)}"
        self.tokens[token] = (list(audiences), user)
        return token

    async def respond(self, request: web.Request) -> web.StreamResponse:
        if self.answer is not None:
            return web.Response(body=self.answer, status=self.answer_status, content_type="application/json")
        match request.method, request.path.strip("/").split("/"):
            case "POST", ["apis", "authentication.k8s.io", "v1", "tokenreviews"]:
                return self._review(json.loads(await request.read()))
            case "GET", ["api", "v1", "namespaces", namespace, "pods", name]:
                pod = self.pods.get(f"{namespace}/{name}")
                return status(404, "NotFound", f'pods "{name}" not found') if pod is None else web.json_response(pod)
        return no_such_resource()

    def _review(self, review: dict[str, Any]) -> web.Response:
        assert (review["apiVersion"], review["kind"]) == ("authentication.k8s.io/v1", "TokenReview")
        token, wanted = review["spec"]["token"], review["spec"]["audiences"]
        audiences, user = self.tokens.get(token, ([], {}))
        both = [each for each in wanted if each in audiences]
        result: dict[str, Any] = {"authenticated": True, "user": user, "audiences": both}
        if not self.knows_audiences and user:
            del result["audiences"]  # an authenticator that is not aware of audiences
        elif not both:
            result = {"user": {}, "error": f"[invalid bearer token {token}, token audiences are invalid]"}
        return web.json_response({**review, "metadata": {"creationTimestamp": None}, "status": result}, status=201)
