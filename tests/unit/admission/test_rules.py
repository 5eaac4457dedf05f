"""Rules of admission about objects that are no policies: MeshConfigs, and templates of pods."""

from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.admission import check_mesh_config, check_template
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.inject import InjectSettings

INJECTS = {"injector.nsm.nginx.com/auto-inject": "enabled"}


def deployment(**container: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "app", **container}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}},
    }


def test_the_mesh_config_that_the_mesh_uses_is_taken() -> None:
    check_mesh_config(ObjectKey("MeshConfig", "nginx-mesh", "nginx-mesh-config"))


@pytest.mark.parametrize(("namespace", "name"), [("nginx-mesh", "another"), ("shop", "nginx-mesh-config")])
def test_another_mesh_config_is_refused_as_it_would_change_nothing(namespace: str, name: str) -> None:
    with pytest.raises(FieldError, match="nginx-mesh/nginx-mesh-config") as caught:
        check_mesh_config(ObjectKey("MeshConfig", namespace, name))
    assert caught.value.field == "metadata.name"


def test_a_template_that_can_be_injected_is_taken() -> None:
    check_template(deployment(ports=[{"containerPort": 8080}]), INJECTS, InjectSettings())


def test_a_template_that_would_break_beside_a_sidecar_is_refused_with_its_field() -> None:
    with pytest.raises(FieldError) as caught:
        check_template(deployment(ports=[{"containerPort": 8900}]), INJECTS, InjectSettings())
    assert caught.value.field.startswith("spec.template.spec.containers[0].ports[0]")


def test_a_template_that_is_not_injected_may_hold_anything() -> None:
    check_template(deployment(ports=[{"containerPort": 8900}]), {}, InjectSettings())
