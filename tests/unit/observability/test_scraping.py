"""Prometheus accepts our scrape configurations, and its labels agree with those of the sidecars' own metrics."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from nginx_mesh.api.kinds import decode
from nginx_mesh.api.pods import Pod
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.inject import InjectSettings, inject_pod

PROMETHEUS = Path(__file__).parents[3] / "deploy/observability/prometheus"
# As a ReplicaSet makes it.
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web-5d8f-x2x",
        "namespace": "shop",
        "labels": {"app": "web", "pod-template-hash": "5d8f"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f", "uid": "u"}],
    },
    "spec": {"containers": [{"name": "app", "image": "web", "ports": [{"containerPort": 8080}]}]},
    "status": {"podIP": "10.1.2.3", "phase": "Running"},
}


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def discovered(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets that Prometheus' discovery of pods makes of one, as a static configuration: one for each port."""
    metadata, status = pod["metadata"], pod["status"]
    common = {f"__meta_kubernetes_pod_label_{_label(name)}": text for name, text in metadata["labels"].items()}
    common |= {"__meta_kubernetes_namespace": metadata["namespace"], "__meta_kubernetes_pod_name": metadata["name"]}
    common |= {"__meta_kubernetes_pod_phase": status["phase"], "__meta_kubernetes_pod_ip": status["podIP"]}
    return [
        {
            "targets": [f"{status['podIP']}:{port['containerPort']}"],
            "labels": common
            | {"__meta_kubernetes_pod_container_name": container["name"]}
            | {"__meta_kubernetes_pod_container_port_number": str(port["containerPort"])},
        }
        for container in pod["spec"]["containers"]
        for port in container["ports"]
    ]


def _label(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)


def scraped(directory: Path, pod: dict[str, Any]) -> list[dict[str, str]]:
    """The labels of the targets that a Prometheus in a cluster scrapes of a pod."""
    config = yaml.safe_load((PROMETHEUS / "kubernetes.yaml").read_text())
    (job,) = config["scrape_configs"]
    # Debian's Prometheus is built without the discovery of Kubernetes.
    del job["kubernetes_sd_configs"]
    job["static_configs"] = discovered(pod)
    config["rule_files"] = []
    file = directory / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    promtool("check", "config", file)
    targets = json.loads(promtool("check", "service-discovery", "--timeout=1s", file, job["job_name"]))
    return [target["labels"] for target in targets if target["labels"]]


def test_prometheus_accepts_the_configuration_for_a_local_mesh() -> None:
    promtool("check", "config", PROMETHEUS / "local.yaml")


def test_in_a_cluster_a_sidecar_has_the_labels_that_the_mesh_gives_it(tmp_path: Path) -> None:
    pod = inject_pod(POD, {}, InjectSettings(), explicit=True, owner=("Deployment", "web")).pod
    (labels,) = scraped(tmp_path, pod)
    assert labels.pop("__address__") == labels.pop("instance") == "10.1.2.3:8887"
    assert labels.pop("job") == "nginx-mesh-sidecars"

    catalog = Catalog()
    found = decode(pod)
    assert isinstance(found, Pod)
    catalog.apply(Upsert(found))
    workload = catalog.topology.pod(found.key)
    assert workload is not None
    assert {name: text for name, text in labels.items() if not name.startswith("__")} == workload.metric_labels
    assert workload.metric_labels["deployment"] == "web"


def test_in_a_cluster_pods_without_a_sidecar_and_finished_pods_are_not_scraped(tmp_path: Path) -> None:
    assert scraped(tmp_path, POD) == []
    pod = inject_pod(POD, {}, InjectSettings(), explicit=True).pod
    assert scraped(tmp_path, {**pod, "status": {**POD["status"], "phase": "Succeeded"}}) == []
