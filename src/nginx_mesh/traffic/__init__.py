"""Traffic metrics: flows between workloads, made of the sidecars' counters, and the SMI Traffic Metrics API.

| module | |
|---|---|
| `exposition`, `history`, `scraper` | read the metrics of sidecars, and tell how much counters increased in a window |
| `promql`, `prometheus` | the same from a Prometheus that scrapes the sidecars |
| `flows`, `connections` | requests and TCP connections between two workloads |
| `graph`, `timeline` | flows as edges of a graph, and over time |
| `measure`, `documents`, `server` | flows added up for a resource, as SMI Traffic Metrics v1alpha1, and served |
| `process`, `frontproxy`, `serving` | the server `nginx-mesh-metrics`, and who may ask it |
"""
