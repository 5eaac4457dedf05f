"""The control plane's metrics of what exists now: they are read from its objects whenever Prometheus asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nginx_mesh.admission import POLICY_KINDS
from nginx_mesh.api.resource import ObjectReader

from .health import SIDECAR_STATES, SvidStatusOf, sidecar_state
from .interfaces import EventReader, Sidecars
from .plane import Plane
from .policystatus import condition


class MeshMetrics(Collector):
    """Sidecars, certificates, objects and events of one mesh.

    `svid_status` gives what is known of the SVID of the pod with a uid.
    """

    def __init__(
        self, plane: Plane, sidecars: Sidecars, objects: ObjectReader, events: EventReader, svid_status: SvidStatusOf
    ) -> None:
        self._plane = plane
        self._sidecars = sidecars
        self._objects = objects
        self._events = events
        self._svid_status = svid_status

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        sidecars = list(self._sidecars.all())
        states = Counter(map(sidecar_state, sidecars))
        yield _by_label(
            "nginx_mesh_sidecars",
            "Sidecars by how they stand to their newest state.",
            "state",
            {state: states[state] for state in SIDECAR_STATES},
        )
        yield GaugeMetricFamily(
            "nginx_mesh_state_version", "The version of the newest state of any sidecar.", self._plane.version
        )
        held = (self._svid_status(sidecar.uid) for sidecar in sidecars)
        expiries = [each.not_after for each in held if each is not None and each.serial]
        if expiries:
            yield GaugeMetricFamily(
                "nginx_mesh_svid_first_expiry_timestamp_seconds", "When the first SVID of a pod expires.", min(expiries)
            )
        kinds = Counter(resource["kind"] for resource in self._objects.list())
        yield _by_label("nginx_mesh_objects", "Objects of the mesh by kind.", "kind", kinds)
        verdicts = Counter(
            "true" if condition(policy.get("status", {}))[0] == "True" else "false"
            for kind in POLICY_KINDS
            for policy in self._objects.list(kind)
        )
        yield _by_label(
            "nginx_mesh_policies",
            "Traffic policies by whether they are in force.",
            "in_force",
            {verdict: verdicts[verdict] for verdict in ("true", "false")},
        )
        yield GaugeMetricFamily("nginx_mesh_events_kept", "Distinct events that are kept.", len(self._events))


def _by_label(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family
