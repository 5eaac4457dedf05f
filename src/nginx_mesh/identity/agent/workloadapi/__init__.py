"""The SPIFFE Workload API: how applications get their SVIDs, over a unix socket that only they can reach."""
