"""What a local mesh's daemon measures when Prometheus asks for it: all that is there, however it came to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nginx_mesh.admission import POLICIES
from nginx_mesh.identity.embedded import LocalIdentity
from nginx_mesh.identity.server.telemetry import AuthorityMetrics
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.store import Store

from .health import SIDECAR_STATES, sidecar_state
from .mesh import Mesh
from .policystatus import condition


class MeshMetrics(Collector):
    """Sidecars, certificates, objects and events of one mesh, and its authority where that is in this process."""

    def __init__(self, mesh: Mesh, store: Store, events: EventLog, identity: LocalIdentity) -> None:
        self._mesh = mesh
        self._store = store
        self._events = events
        self._identity = identity

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        sidecars = list(self._mesh.sidecars())
        states = Counter(map(sidecar_state, sidecars))
        yield _by_label(
            "nginx_mesh_sidecars",
            "Sidecars by how they stand to their newest state.",
            "state",
            {state: states[state] for state in SIDECAR_STATES},
        )
        yield GaugeMetricFamily(
            "nginx_mesh_state_version", "The version of the newest state of any sidecar.", self._mesh.version
        )
        held = (self._identity.agent.holding(sidecar.uid) for sidecar in sidecars)
        expiries = [each.not_after for each in held if each is not None and each.serial]
        if expiries:
            yield GaugeMetricFamily(
                "nginx_mesh_svid_first_expiry_timestamp_seconds", "When the first SVID of a pod expires.", min(expiries)
            )
        kinds = Counter(resource["kind"] for resource in self._store.list())
        yield _by_label("nginx_mesh_objects", "Objects of the mesh by kind.", "kind", kinds)
        verdicts = Counter(
            "true" if condition(policy.get("status", {}))[0] == "True" else "false"
            for kind in POLICIES
            for policy in self._store.list(kind)
        )
        yield _by_label(
            "nginx_mesh_policies",
            "Traffic policies by whether they are in force.",
            "in_force",
            {verdict: verdicts[verdict] for verdict in ("true", "false")},
        )
        yield GaugeMetricFamily("nginx_mesh_events_kept", "Distinct events that are kept.", len(self._events))
        if self._identity.server is not None:
            yield from AuthorityMetrics(self._identity.server.authority).collect()


def _by_label(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family
