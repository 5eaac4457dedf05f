"""The settings in force, and what of them may change while a mesh runs."""

from __future__ import annotations

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource, key_of
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.status import StatusError
from nginx_mesh.control.settings import CONFIG_KEY, changed_config, first_config, settings_in_force

INSTALLED = MeshSettings(mtls_mode="permissive", trust_domain="example.org")


class Objects:
    """A few objects to read."""

    def __init__(self, *resources: Resource) -> None:
        self._resources = {key_of(resource): resource for resource in resources}

    def get(self, key: ObjectKey) -> Resource | None:
        return self._resources.get(key)

    def list(self, kind: str | None = None, namespace: str | None = None) -> list[Resource]:
        return list(self._resources.values())


def test_without_a_mesh_config_the_settings_of_the_installation_are_in_force() -> None:
    assert settings_in_force(INSTALLED, Objects()) == INSTALLED


def test_the_first_mesh_config_changes_nothing() -> None:
    assert settings_in_force(INSTALLED, Objects(*first_config(INSTALLED))) == INSTALLED


def test_a_changed_mesh_config_is_in_force() -> None:
    config = changed_config(INSTALLED, INSTALLED, {"mtls_mode": "strict"})
    assert key_of(config) == CONFIG_KEY
    assert settings_in_force(INSTALLED, Objects(config)).mtls_mode == "strict"


def test_what_was_changed_before_is_kept() -> None:
    strict = settings_in_force(INSTALLED, Objects(changed_config(INSTALLED, INSTALLED, {"mtls_mode": "strict"})))
    config = changed_config(INSTALLED, strict, {"error_log_level": "debug"})
    settings = settings_in_force(INSTALLED, Objects(config))
    assert (settings.mtls_mode, settings.error_log_level) == ("strict", "debug")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mtls_mode": "sometimes"}, "mtls_mode"),
        ({"trust_domain": "other.org"}, "may change while the mesh runs: trust_domain"),
    ],
)
def test_what_may_not_be_is_refused_with_its_name(changes: Resource, message: str) -> None:
    with pytest.raises(StatusError, match=message) as caught:
        changed_config(INSTALLED, INSTALLED, changes)
    assert caught.value.reason == "Invalid"
