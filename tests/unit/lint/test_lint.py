"""Every rule finds its mistake, and nothing in a sound mesh."""

from __future__ import annotations

import re

import pytest

from nginx_mesh.lint import RULES, Finding, lint
from tests.mesh.manifests import SHOP, service_account

_WORKLOADS_AND_POLICIES = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: web, image: web}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {serviceAccountName: api, containers: [{name: api, image: api, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: spare, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: routes, namespace: shop}
spec: {matches: [{name: read, pathRegex: "^/items", methods: [GET]}, {name: write, methods: [POST]}]}
---
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: api, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: api, port: 8080}
  sources: [{kind: ServiceAccount, name: web}]
  rules: [{kind: HTTPRouteGroup, name: routes, matches: [read]}]
---
apiVersion: split.smi-spec.io/v1alpha3
kind: TrafficSplit
metadata: {name: api, namespace: shop}
spec: {service: api, backends: [{service: api, weight: 9}, {service: spare, weight: 1}]}
---
apiVersion: specs.smi.nginx.com/v1alpha2
kind: RateLimit
metadata: {name: api, namespace: shop}
spec:
  destination: {kind: Service, name: api}
  sources: [{kind: Deployment, name: web}]
  name: 10rs
  rate: 10r/s
  burst: 5
---
apiVersion: specs.smi.nginx.com/v1alpha1
kind: CircuitBreaker
metadata: {name: api, namespace: shop}
spec:
  destination: {kind: Service, name: api}
  errors: 3
  timeoutSeconds: 30
  fallback: {service: shop/spare}
---
apiVersion: nsm.nginx.com/v1alpha2
kind: MeshConfig
metadata: {name: nginx-mesh-config, namespace: default}
spec: {meshConfigClassName: nginx-mesh-config-class, accessControlMode: deny, mtls: {mode: strict}}
"""
_SOUND = SHOP + service_account("web") + service_account("api") + _WORKLOADS_AND_POLICIES


def found(text: str) -> list[Finding]:
    return lint([("mesh.yaml", text.encode())])


def with_(old: str, new: str) -> str:
    """The sound mesh with one piece of text replaced, which must be in it once."""
    assert _SOUND.count(old) == 1, old
    return _SOUND.replace(old, new)


def plus(text: str) -> str:
    return f"{_SOUND}---\n{text}"


def tcp(text: str) -> str:
    return text.replace("name: http, port: 80, targetPort", "name: tcp, port: 80, targetPort")


_GROUP = "apiVersion: specs.smi-spec.io/v1alpha3\nkind: HTTPRouteGroup\nmetadata: {name: g, namespace: shop}\n"
_TCP_ROUTE = "apiVersion: specs.smi-spec.io/v1alpha3\nkind: TCPRoute\nmetadata: {name: routes, namespace: shop}\n"
_LIMIT = (
    "apiVersion: specs.smi.nginx.com/v1alpha2\nkind: RateLimit\nmetadata: {name: b, namespace: shop}\n"
    "spec: {destination: {kind: Service, name: api}, sources: [{kind: Deployment, name: web}], name: b, rate: 9r/s,"
    " burst: 1}\n"
)
_SPLIT = (
    "apiVersion: split.smi-spec.io/v1alpha3\nkind: TrafficSplit\nmetadata: {name: b, namespace: shop}\n"
    "spec: {service: %s, backends: [{service: api, weight: 1}]}\n"
)
_BREAKER = (
    "apiVersion: specs.smi.nginx.com/v1alpha1\nkind: CircuitBreaker\nmetadata: {name: b, namespace: shop}\n"
    "spec: {destination: {kind: Service, name: api}, errors: 1, timeoutSeconds: 1}\n"
)
_READ = '{name: read, pathRegex: "^/items", methods: [GET]}'
_WEB_POD = "metadata: {labels: {app: web}}"
_FALLBACK = "fallback: {service: shop/spare}"

CASES = {
    "NM0001": (plus("kind: [\n"), "mesh.yaml", ""),
    "NM0002": (with_("rate: 10r/s", "rate: fast"), "RateLimit shop/api", "spec.rate"),
    "NM0003": (
        with_(_WEB_POD, "metadata: {labels: {app: web}, annotations: {config.nsm.nginx.com/mtls-mode: maybe}}"),
        "Deployment shop/web",
        "spec.template.metadata.annotations[config.nsm.nginx.com/mtls-mode]",
    ),
    "NM0004": (plus(_TCP_ROUTE + "---\n" + _TCP_ROUTE), "TCPRoute shop/routes", "metadata.name"),
    "NM0005": (
        with_("serviceAccountName: web", "serviceAccountName: wbe"),
        "Deployment shop/web",
        "spec.template.spec",
    ),
    "NM0101": (
        with_(_WEB_POD, "metadata: {labels: {app: web}, annotations: {config.nsm.nginx.com/mtls-mod: strict}}"),
        "Deployment shop/web",
        "spec.template.metadata.annotations[config.nsm.nginx.com/mtls-mod]",
    ),
    "NM0102": (
        with_(
            "metadata: {name: web, namespace: shop}\nspec:",
            "metadata: {name: web, namespace: shop, annotations: {config.nsm.nginx.com/mtls-mode: strict}}\nspec:",
        ),
        "Deployment shop/web",
        "metadata.annotations[config.nsm.nginx.com/mtls-mode]",
    ),
    "NM0103": (
        with_(_WEB_POD, "metadata: {labels: {app: web}, annotations: {config.nsm.nginx.com/mtls-mode: 'off'}}"),
        "Deployment shop/web",
        "spec.template.metadata.annotations[config.nsm.nginx.com/mtls-mode]",
    ),
    "NM0110": (
        with_("{name: http, port: 80}", "{name: tcp, port: 80}"),
        "TrafficSplit shop/api",
        "spec.backends[1].service",
    ),
    "NM0201": (
        with_(_READ, f"{_READ}, {{name: one, pathRegex: ^/items/1}}".replace("one,", "one, methods: [GET],")),
        "HTTPRouteGroup shop/routes",
        "spec.matches[1]",
    ),
    "NM0202": (with_('"^/items"', '"/items"'), "HTTPRouteGroup shop/routes", "spec.matches[0].pathRegex"),
    "NM0203": (with_("methods: [POST]", "methods: [post]"), "HTTPRouteGroup shop/routes", "spec.matches[1].methods[0]"),
    "NM0204": (plus(f"{_GROUP}spec: {{matches: [{{name: a}}]}}"), "HTTPRouteGroup shop/g", ""),
    "NM0205": (with_("matches: [read]", "matches: [raed]"), "TrafficTarget shop/api", "spec.rules[0].matches"),
    "NM0206": (
        tcp(_SOUND),
        "TrafficTarget shop/api",
        "spec.rules",
    ),
    "NM0301": (
        with_("destination: {kind: ServiceAccount, name: api,", "destination: {kind: ServiceAccount, name: ipa,"),
        "TrafficTarget shop/api",
        "spec.destination",
    ),
    "NM0302": (
        with_("sources: [{kind: ServiceAccount, name: web}]", "sources: [{kind: ServiceAccount, name: wbe}]"),
        "TrafficTarget shop/api",
        "spec.sources[0]",
    ),
    "NM0303": (
        with_("name: api, port: 8080", "name: api, port: 80"),
        "TrafficTarget shop/api",
        "spec.destination.port",
    ),
    "NM0304": (with_("auto-inject: enabled", "auto-inject: disabled"), "TrafficTarget shop/api", "spec.destination"),
    "NM0305": (
        with_("sources: [{kind: ServiceAccount, name: web}]", "sources: []"),
        "TrafficTarget shop/api",
        "spec.sources",
    ),
    "NM0401": (
        with_("{service: api, weight: 9}, {service: spare, weight: 1}", "{service: spare, weight: 0}"),
        "TrafficSplit shop/api",
        "spec.backends",
    ),
    "NM0402": (with_("service: spare, weight", "service: spaer, weight"), "TrafficSplit shop/api", "spec.backends[1]"),
    "NM0403": (with_("service: api, backends", "service: ipa, backends"), "TrafficSplit shop/api", "spec.service"),
    "NM0404": (
        with_("{selector: {app: web}", "{selector: {app: wbe}"),
        "TrafficSplit shop/api",
        "spec.backends[1].service",
    ),
    "NM0405": (plus(_SPLIT % "api"), "TrafficSplit shop/b", "spec.service"),
    "NM0406": (plus(_SPLIT % "spare"), "TrafficSplit shop/api", "spec.backends[1].service"),
    "NM0501": (
        with_(
            "destination: {kind: Service, name: api}\n  sources", "destination: {kind: Service, name: ipa}\n  sources"
        ),
        "RateLimit shop/api",
        "spec.destination",
    ),
    "NM0502": (
        with_("sources: [{kind: Deployment, name: web}]", "sources: [{kind: StatefulSet, name: web}]"),
        "RateLimit shop/api",
        "spec.sources[0]",
    ),
    "NM0503": (plus(_LIMIT), "RateLimit shop/b", "spec.sources[0]"),
    "NM0504": (with_("burst: 5", "burst: 0"), "RateLimit shop/api", "spec.burst"),
    "NM0505": (tcp(_SOUND), "RateLimit shop/api", "spec.destination"),
    "NM0601": (with_("service: shop/spare", "service: shop/spaer"), "CircuitBreaker shop/api", "spec.fallback.service"),
    "NM0602": (with_("service: shop/spare", "service: spare"), "CircuitBreaker shop/api", "spec.fallback.service"),
    "NM0603": (plus(_BREAKER), "CircuitBreaker shop/b", "spec.destination"),
    "NM0604": (with_(_FALLBACK, ""), "CircuitBreaker shop/api", "spec.fallback"),
    "NM0701": (with_("mode: strict", "mode: permissive"), "MeshConfig default/nginx-mesh-config", "spec.mtls.mode"),
    "NM0702": (
        with_("accessControlMode: deny", "accessControlMode: allow"),
        "MeshConfig default/nginx-mesh-config",
        "spec.accessControlMode",
    ),
}


def test_a_sound_mesh_has_no_findings() -> None:
    assert found(_SOUND) == []


@pytest.mark.parametrize("code", CASES)
def test_each_rule_finds_its_mistake(code: str) -> None:
    text, key, field = CASES[code]
    findings = [one for one in found(text) if one.rule.code == code]
    assert findings, [str(one) for one in found(text)]
    if code != "NM0001":
        assert findings[0].object == key
        assert findings[0].field.startswith(field)
    assert findings[0].file == "mesh.yaml"
    assert findings[0].document >= 1


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(RULES)


def test_codes_have_one_form_and_are_in_order() -> None:
    assert list(RULES) == sorted(RULES)
    assert all(re.fullmatch(r"NM\d{4}", code) for code in RULES)


def test_a_match_that_a_policy_names_alone_is_not_superfluous() -> None:
    """Or else the remedy would be to remove a match that the policy refers to."""
    matches = '{name: all}, {name: read, pathRegex: "^/items", methods: [GET]}'
    assert "NM0201" not in {one.rule.code for one in found(with_(_READ, matches)) if one.field == "spec.matches[1]"}


def test_policies_without_workloads_are_checked_only_by_rules_that_need_none() -> None:
    documents = _SOUND.split("---\n")
    policies = "---\n".join(one for one in documents if "smi" in one)
    # The only finding is that the namespace is not in the manifests.
    assert {one.rule.code for one in found(policies)} == {"NM0005"}


def test_a_field_is_reported_once() -> None:
    for code, (text, _, _) in CASES.items():
        places = [(one.object, one.field) for one in found(text) if one.rule.code != "NM0005"]
        assert len(places) == len(set(places)), code
