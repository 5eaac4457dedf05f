"""`nginx-meshctl inject` with what `kubectl get` prints of a running cluster, through a pipe."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from nginx_mesh.api.documents import read_one
from tests.unit.api import corpus
from tests.unit.api.corpus import Raw

INJECT = [sys.executable, "-c", "from nginx_mesh.cli.main import main; main()", "inject"]
SIDECAR = "nginx-mesh-sidecar"


def printed(value: Raw) -> str:
    """An object as `kubectl get -o yaml` prints it: keys in order, lists not indented."""
    return yaml.safe_dump(value, sort_keys=True, default_flow_style=False, allow_unicode=True, width=1 << 20)


def inject(text: str) -> tuple[Raw, str]:
    """What comes out of the command, and what it says on stderr."""
    result = subprocess.run(INJECT, input=text.encode(), capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    document: Raw = read_one(result.stdout, "stdout")
    return document, result.stderr.decode()


def pods_in(raw: Raw) -> Iterator[Raw]:
    """The pod, or the template of pods, in an object, or in those of a list."""
    if raw["kind"] == "List":
        for item in raw["items"]:
            yield from pods_in(item)
    elif raw["kind"] == "Pod":
        yield raw
    else:
        spec = raw["spec"]
        yield spec["jobTemplate"]["spec"]["template"] if raw["kind"] == "CronJob" else spec["template"]


def names(containers: list[Raw]) -> list[str]:
    return [container["name"] for container in containers]


def without_injection(raw: Raw) -> Raw:
    """What is left of an object when all that injection adds is taken away, and checks of health are put back."""
    raw = copy.deepcopy(raw)
    for pod in pods_in(raw):
        metadata, spec = pod["metadata"], pod["spec"]
        if SIDECAR not in names(spec["containers"]):
            continue
        assert names(spec["containers"]).pop() == SIDECAR
        spec["containers"].pop()
        assert spec["initContainers"].pop()["name"] == "nginx-mesh-init"
        del spec["volumes"][-2:]
        redirects = yaml.safe_load(metadata["annotations"].pop("injector.nsm.nginx.com/probes", "[]"))
        for redirect in redirects:
            _, _, container, kind = redirect["path"].split("/")
            action = next(each for each in spec["containers"] if each["name"] == container)[f"{kind}Probe"]["httpGet"]
            action |= {"port": redirect["port"], "path": redirect.get("original_path", "/")}
        del metadata["annotations"]["injector.nsm.nginx.com/status"]
        for label in [label for label in metadata["labels"] if label.startswith(("nsm.nginx.com/", "spiffe.io/"))]:
            del metadata["labels"][label]
        for parent, fields in ((spec, ("initContainers", "volumes")), (metadata, ("labels", "annotations"))):
            for field in fields:
                if not parent[field]:
                    del parent[field]
    return raw


def injectable(raw: Raw) -> bool:
    return all(not pod["spec"].get("hostNetwork") for pod in pods_in(raw))


def check(original: Raw, result: Raw) -> None:
    assert without_injection(result) == without_injection(original)
    for before, after in zip(pods_in(original), pods_in(result), strict=True):
        meshed = not before["spec"].get("hostNetwork")
        assert names(after["spec"]["containers"]).count(SIDECAR) == meshed


@pytest.mark.parametrize("name", ["web-", "crashing"])
def test_a_running_pod_is_injected_and_keeps_every_field(name: str) -> None:
    original = corpus.pod(name)
    result, said = inject(printed(original))
    check(original, result)
    assert result["status"] == original["status"]
    assert said == ""


FILES = ("pods", "deployments", "statefulsets", "daemonsets", "jobs", "cronjobs", "replicasets")


@pytest.mark.parametrize("file", FILES)
def test_a_list_of_what_makes_pods_is_injected_and_keeps_every_field(file: str) -> None:
    original = corpus.read(f"{file}.json")
    result, said = inject(printed(original))
    assert result["kind"] == "List"
    check(original, result)
    passed = [item for item in original["items"] if not injectable(item)]
    assert said.count("is not injected: pods in the host's network are never injected") == len(passed)


@pytest.mark.parametrize("file", ["services", "endpoints", "endpointslices", "nodes", "controllerrevisions"])
def test_a_list_of_anything_else_passes_unchanged(file: str) -> None:
    original = corpus.read(f"{file}.json")
    assert inject(printed(original)) == (original, "")


def test_the_page_of_a_list_of_one_kind_keeps_the_form_of_its_items() -> None:
    original = corpus.read("list-page.json")
    pod: dict[str, Any] = original["items"][0]
    pod["spec"].pop("hostNetwork", None)
    result, _ = inject(printed(original))
    (item,) = result["items"]
    assert "kind" not in item and names(item["spec"]["containers"])[-1] == SIDECAR
    assert {**result, "items": []} == {**original, "items": []}


def test_a_pod_that_no_api_server_gives_is_refused_by_its_field() -> None:
    broken = corpus.pod("web-")
    broken["status"]["containerStatuses"][0]["state"] = "running"
    result = subprocess.run(INJECT, input=printed(broken).encode(), capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (1, b"")
    name = f"Pod default/{broken['metadata']['name']}"
    field = "status.containerStatuses[0].state: must be a mapping, not a string"
    assert result.stderr.decode() == f"error: stdin document 1: {name}: {field}\n"
