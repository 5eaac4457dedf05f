from __future__ import annotations

import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nginx_mesh.api.settings import MeshSettings, UpstreamAuthority
from nginx_mesh.api.values import HostPort
from nginx_mesh.cli.settings_flags import mesh_flags
from nginx_mesh.identity.common.keys import generate_key, to_pem
from nginx_mesh.identity.common.x509svid import certificate_pem, issue_authority


def settings_of(*arguments: str) -> MeshSettings:
    seen: list[MeshSettings] = []

    @click.command()
    @mesh_flags
    def command(settings: MeshSettings) -> None:
        seen.append(settings)

    result = CliRunner().invoke(command, arguments)
    if result.exit_code:
        raise click.UsageError(result.output)
    return seen[0]


def test_flags_have_the_settings_defaults() -> None:
    assert settings_of() == MeshSettings()


def test_every_flag_sets_its_setting() -> None:
    assert settings_of(
        *(
            "--mtls-mode",
            "strict",
            "--mtls-ca-ttl",
            "24h",
            "--mtls-svid-ttl",
            "30m",
            "--mtls-trust-domain",
            "mesh.test",
        ),
        *("--mtls-ca-key-type", "ec-p384", "--spire-server-key-manager", "memory", "--persistent-storage", "off"),
        *("--access-control-mode", "deny", "--nginx-lb-method", "random two least_conn", "--client-max-body-size", "0"),
        *("--nginx-error-log-level", "debug", "--nginx-log-format", "json", "--environment", "openshift"),
        *("--prometheus-address", "prometheus.monitoring:9090", "--telemetry-sampler-ratio", "0.5", "--enable-udp"),
        *("--telemetry-exporters", "type=otlp,host=collector.telemetry,port=4317"),
    ) == MeshSettings(
        mtls_mode="strict",
        ca_ttl=24 * 3600,
        svid_ttl=1800,
        trust_domain="mesh.test",
        ca_key_type="ec-p384",
        key_manager="memory",
        persistent_storage="off",
        access_control_mode="deny",
        lb_method="random two least_conn",
        client_max_body_size=0,
        error_log_level="debug",
        log_format="json",
        environment="openshift",
        prometheus_address=HostPort("prometheus.monitoring", 9090),
        otlp=HostPort("collector.telemetry", 4317),
        sampler_ratio=0.5,
        enable_udp=True,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mtls-mode", "on"),
        ("--mtls-ca-ttl", "1h"),
        ("--mtls-svid-ttl", "1s"),
        ("--mtls-trust-domain", "Mesh Test"),
        ("--client-max-body-size", "1 m"),
        ("--nginx-lb-method", "ip_hash"),
        ("--prometheus-address", "prometheus"),
        ("--telemetry-exporters", "type=zipkin,host=a,port=1"),
        ("--telemetry-exporters", "type=otlp,host=a"),
        ("--telemetry-exporters", "type=otlp,host=a,port=1,host=b"),
        ("--telemetry-sampler-ratio", "2"),
        ("--telemetry-sampler-ratio", "nan"),
        ("--mtls-upstream-ca-conf", "/does/not/exist"),
    ],
)
def test_a_wrong_value_is_wrong_usage_that_names_the_flag(arguments: tuple[str, str]) -> None:
    with pytest.raises(click.UsageError, match=arguments[0]):
        settings_of(*arguments)


def test_the_upstream_authority_comes_from_a_file_that_its_paths_are_relative_to(tmp_path: Path) -> None:
    key = generate_key("ec-p256")
    ca = issue_authority(key, "example.org", time.time() - 60, time.time() + 60, 1)
    (tmp_path / "ca.pem").write_text(certificate_pem(ca))
    (tmp_path / "ca.key").write_text(to_pem(key))
    path = tmp_path / "upstream.yaml"
    path.write_text(
        "apiVersion: v1\nupstreamAuthority: disk\nconfig: {cert_file_path: ca.pem, key_file_path: ca.key}\n"
    )
    config = {"cert_file_path": str(tmp_path / "ca.pem"), "key_file_path": str(tmp_path / "ca.key")}
    assert settings_of("--mtls-upstream-ca-conf", str(path)).upstream_authority == UpstreamAuthority(
        api_version="v1", upstream_authority="disk", config=config
    )
    (tmp_path / "ca.key").unlink()
    with pytest.raises(click.UsageError, match=r"config\.key_file_path: .*/ca\.key: cannot be read"):
        settings_of("--mtls-upstream-ca-conf", str(path))


@pytest.mark.parametrize(
    "text", ["", "upstreamAuthority: disk", 'apiVersion: "0"\nupstreamAuthority: x\nconfig: {}', "a: ["]
)
def test_a_wrong_upstream_authority_is_wrong_usage(text: str, tmp_path: Path) -> None:
    path = tmp_path / "upstream.yaml"
    path.write_text(text)
    with pytest.raises(click.UsageError, match="--mtls-upstream-ca-conf"):
        settings_of("--mtls-upstream-ca-conf", str(path))
