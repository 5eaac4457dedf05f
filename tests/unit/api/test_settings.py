from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.kinds import decode, to_dict
from nginx_mesh.api.nsm import MeshConfig
from nginx_mesh.api.settings import MeshSettings, UpstreamAuthority
from nginx_mesh.api.values import HostPort


def mesh_config(**spec: Any) -> MeshConfig:
    raw = {
        "apiVersion": "nsm.nginx.com/v1alpha2",
        "kind": "MeshConfig",
        "metadata": {"name": "nginx-mesh-config", "namespace": "nginx-mesh"},
        "spec": {"meshConfigClassName": "nginx-mesh-config-class", **spec},
    }
    config = decode(raw)
    assert isinstance(config, MeshConfig)
    return config


def test_defaults_are_those_of_nginx_service_mesh() -> None:
    settings = MeshSettings()
    assert settings.mtls_mode == "permissive"
    assert settings.ca_ttl == 720 * 3600
    assert settings.svid_ttl == 3600
    assert settings.trust_domain == "example.org"
    assert settings.access_control_mode == "allow"
    assert settings.lb_method == "least_time"
    assert settings.client_max_body_size == 1 << 20
    assert settings.error_log_level == "warn"
    assert settings.sampler_ratio == 0.01


def test_a_mesh_config_overlays_every_run_time_field() -> None:
    config = mesh_config(
        accessControlMode="deny",
        clientMaxBodySize="0",
        mtls={"mode": "strict", "caTTL": "48h", "svidTTL": "5m", "caKeyType": "rsa-4096"},
        nginxErrorLogLevel="debug",
        nginxLBMethod="random two least_time=last_byte",
        nginxLogFormat="json",
        prometheusAddress="prometheus.monitoring:9090",
        telemetry={"exporters": {"otlp": {"host": "collector.telemetry", "port": 4317}}, "samplerRatio": 1},
    )
    assert MeshSettings(trust_domain="mesh.test").with_config(config) == MeshSettings(
        trust_domain="mesh.test",
        access_control_mode="deny",
        client_max_body_size=0,
        mtls_mode="strict",
        ca_ttl=48 * 3600,
        svid_ttl=300,
        ca_key_type="rsa-4096",
        error_log_level="debug",
        lb_method="random two least_time=last_byte",
        log_format="json",
        prometheus_address=HostPort("prometheus.monitoring", 9090),
        otlp=HostPort("collector.telemetry", 4317),
        sampler_ratio=1,
    )


def test_what_a_mesh_config_leaves_out_keeps_its_install_time_value() -> None:
    installed = MeshSettings(mtls_mode="strict", lb_method="random", client_max_body_size=5)
    assert installed.with_config(mesh_config()) == installed


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"clientMaxBodySize": "1 m"}, "spec.clientMaxBodySize"),
        ({"mtls": {"caTTL": "1h"}}, "spec.mtls.caTTL"),
        ({"mtls": {"svidTTL": "10s"}}, "spec.mtls.svidTTL"),
        ({"prometheusAddress": "prometheus"}, "spec.prometheusAddress"),
        ({"telemetry": {"samplerRatio": 1.5}}, "spec.telemetry.samplerRatio"),
        ({"telemetry": {"exporters": {"otlp": {"host": "", "port": 1}}}}, "spec.telemetry.exporters.otlp.host"),
        ({"telemetry": {"exporters": {"otlp": {"host": "a", "port": 0}}}}, "spec.telemetry.exporters.otlp.port"),
    ],
)
def test_a_wrong_value_is_named_by_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        MeshSettings().with_config(mesh_config(**spec))
    assert caught.value.field == field


settings_strategy = st.builds(
    MeshSettings,
    mtls_mode=st.sampled_from(["off", "permissive", "strict"]),
    ca_ttl=st.integers(24, 999_999).map(lambda hours: hours * 3600),
    svid_ttl=st.integers(1, 999_999).map(lambda minutes: minutes * 60),
    client_max_body_size=st.integers(0, (1 << 63) - 1),
    prometheus_address=st.none() | st.builds(HostPort, st.just("p.monitoring"), st.integers(1, 65535)),
    otlp=st.none() | st.builds(HostPort, st.sampled_from(["a.b", "::1"]), st.integers(1, 65535)),
    sampler_ratio=st.floats(0, 1),
)


@given(settings_strategy)
def test_settings_survive_being_written_as_a_mesh_config(settings: MeshSettings) -> None:
    config = decode(to_dict(settings.to_config()))
    assert isinstance(config, MeshConfig)
    assert MeshSettings().with_config(config) == settings


def test_times_that_a_mesh_config_has_no_words_for_stay_as_they_are() -> None:
    settings = MeshSettings(ca_ttl=60, svid_ttl=20)
    assert settings.with_config(settings.to_config()) == settings


@pytest.mark.parametrize("wrong", [{"ca_ttl": 0}, {"sampler_ratio": float("nan")}, {"trust_domain": "Example.org"}])
def test_settings_that_make_no_sense_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(FieldError):
        MeshSettings(**wrong)


def test_an_upstream_authority_does_not_show_its_secrets() -> None:
    authority = UpstreamAuthority(api_version="0.1", upstream_authority="vault", config={"token": "s3cret"})
    assert "s3cret" not in repr(authority)
    assert "s3cret" not in repr(MeshSettings(upstream_authority=authority))
