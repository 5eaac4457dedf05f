"""All settings as one document."""

from __future__ import annotations

import json

from nginx_mesh.api.fullconfig import full_config
from nginx_mesh.api.settings import MeshSettings, UpstreamAuthority
from nginx_mesh.api.values import HostPort


def test_settings_are_told_in_the_words_of_flags_and_meshconfig() -> None:
    settings = MeshSettings(svid_ttl=90, client_max_body_size=0, otlp=HostPort("collector.obs", 4317))
    found = full_config(settings)
    assert (found["mtls"]["caTTL"], found["mtls"]["svidTTL"], found["clientMaxBodySize"]) == ("720h", "90s", "0")
    assert found["telemetry"] == {
        "exporters": {"otlp": {"host": "collector.obs", "port": 4317}},
        "samplerRatio": 0.01,
    }


def test_no_setting_is_forgotten() -> None:
    leaves = len(MeshSettings.__struct_fields__)

    def count(value: object) -> int:
        return sum(map(count, value.values())) if isinstance(value, dict) else 1

    # Besides the settings: the namespace; the exporter is a host and a port.
    assert count(full_config(MeshSettings(otlp=HostPort("h", 1)))) == leaves + 2


def test_the_upstream_authoritys_secrets_are_not_told() -> None:
    upstream = UpstreamAuthority(
        api_version="1", upstream_authority="vault", config={"token_auth": {"token": "hvs.secret"}}
    )
    text = json.dumps(full_config(MeshSettings(upstream_authority=upstream)))
    assert "hvs.secret" not in text
    assert '"upstreamAuthority": "vault"' in text
