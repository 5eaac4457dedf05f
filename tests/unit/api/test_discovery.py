"""Names of kinds."""

from __future__ import annotations

import pytest

from nginx_mesh.api import discovery


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pods", "Pod"),
        ("Deploy", "Deployment"),
        ("deployment.apps", "Deployment"),
        ("deployments.apps", "Deployment"),
        ("ratelimits.specs.smi.nginx.com", "RateLimit"),
        ("ev", "Event"),
    ],
)
def test_every_name_that_kubectl_takes_or_prints_is_known(name: str, kind: str) -> None:
    found = discovery.find(name)
    assert found is not None
    assert kind == found.KIND
    assert discovery.find(discovery.title(found)) is found


@pytest.mark.parametrize("name", ["", "nothing", "pods.apps", "deployments.app", "deployments.batch"])
def test_other_names_are_not(name: str) -> None:
    assert discovery.find(name) is None


def test_events_and_unknown_kinds() -> None:
    assert discovery.by_kind("Event").PLURAL == "events"
    with pytest.raises(KeyError):
        discovery.by_kind("Ingress")
