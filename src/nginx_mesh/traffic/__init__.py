"""Traffic metrics: what sidecars counted, as flows between workloads, and as the Service Mesh Interface shows them.

`exposition` reads what a sidecar exposes, `history` tells what was added within a window, `flows` between whom;
`measure` sums flows up for one resource, `documents` says it as SMI Traffic Metrics v1alpha1, `server` serves that.
All but `server` is pure.
"""
