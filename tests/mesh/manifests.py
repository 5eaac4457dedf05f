"""Manifests of the objects that several tests of meshes need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

PEERS = Path(__file__).parent / "peers"

SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {injector.nsm.nginx.com/auto-inject: enabled}}
---
"""


def service_account(name: str) -> str:
    """A ServiceAccount in namespace shop."""
    return f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: shop}}
---
"""


def idle_pod(name: str, namespace: str = "shop", *, account: str = "default") -> str:
    """A Pod whose only container, which has the name of the Pod, does nothing. Tests run commands in it."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  serviceAccountName: {account}
  terminationGracePeriodSeconds: 1
  containers: [{{name: {name}, command: [sleep, infinity]}}]
---
"""


IDLE_CLIENT = idle_pod("client")


def web(address: str, *, grace: int = 5) -> str:
    """A Deployment of two web servers in namespace shop, and their Service at an address; `grace` is seconds."""
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: {grace}
      containers:
      - name: web
        command: [python3, -u, -m, http.server, "8080", --bind, "::"]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec:
  clusterIP: {address}
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
---
"""


def service(
    name: str,
    namespace: str,
    selector: str,
    *,
    protocol: str = "http",
    port: int = 80,
    target: int = 8080,
    address: str = "",
) -> str:
    """A Service with one port. `selector` is one label as YAML has it, such as `app: web`.

    `address` is its cluster IP, or "None" if the Service is headless; without one, the mesh allocates it.
    """
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  {f"clusterIP: {address}" if address else ""}
  selector: {{{selector}}}
  ports: [{{name: {protocol}, port: {port}, targetPort: {target}}}]
---
"""


def peers(*files: str) -> str:
    """A ConfigMap named peers in namespace shop, of these programs of tests/mesh/peers, or of all."""
    paths = [PEERS / file for file in files] or PEERS.glob("*.py")
    code = {path.name: path.read_text() for path in paths}
    metadata = {"name": "peers", "namespace": "shop"}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": code}) + "---\n"


def traffic_target(name: str, *, destination: str, source: str, rule: str = "") -> str:
    """A TrafficTarget between two ServiceAccounts of namespace shop. `rule` is YAML; without one, it allows all."""
    return f"""
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {{name: {name}, namespace: shop}}
spec:
  destination: {{kind: ServiceAccount, name: {destination}}}
  sources: [{{kind: ServiceAccount, name: {source}}}]
  {f"rules: [{rule}]" if rule else ""}
---
"""


def traffic_split(name: str, root: str, weights: Mapping[str, int], *, match: str = "") -> str:
    """A TrafficSplit in namespace shop, with weights by Service. `match` may name an HTTPRouteGroup to limit it to."""
    backends = ", ".join(f"{{service: {service}, weight: {weight}}}" for service, weight in weights.items())
    return f"""
apiVersion: split.smi-spec.io/v1alpha3
kind: TrafficSplit
metadata: {{name: {name}, namespace: shop}}
spec:
  service: {root}
  backends: [{backends}]
  {f"matches: [{{kind: HTTPRouteGroup, name: {match}}}]" if match else ""}
---
"""
