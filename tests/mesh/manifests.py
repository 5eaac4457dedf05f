"""Manifests that several tests of local meshes begin with."""

from __future__ import annotations

SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {injector.nsm.nginx.com/auto-inject: enabled}}
---
"""

IDLE_CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: client, command: [sleep, infinity]}]}
---
"""


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
    headless: bool = False,
) -> str:
    """A Service with one port. `selector` is one label as YAML has it, such as `app: web`."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  {"clusterIP: None" if headless else ""}
  selector: {{{selector}}}
  ports: [{{name: {protocol}, port: {port}, targetPort: {target}}}]
---
"""
