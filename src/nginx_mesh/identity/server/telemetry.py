"""The metrics that an authority collects when Prometheus scrapes them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .authority import Authority


class AuthorityMetrics(Collector):
    """Metrics of one authority: the expiry of its CAs, and the number of roots in its bundle."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        expiry = GaugeMetricFamily(
            "nginx_mesh_ca_expiry_timestamp_seconds", "When a CA expires, by what it is for.", labels=["ca"]
        )
        for name, ca in (("current", self._authority.current), ("next", self._authority.upcoming)):
            if ca is not None:
                expiry.add_metric([name], ca.not_after)
        yield expiry
        yield GaugeMetricFamily(
            "nginx_mesh_ca_delayed",
            "Whether something keeps the next CA from being made.",
            bool(self._authority.problem),
        )
        yield GaugeMetricFamily(
            "nginx_mesh_bundle_roots",
            "Roots in the bundle of the trust domain.",
            len(self._authority.bundles.own.x509_authorities),
        )
