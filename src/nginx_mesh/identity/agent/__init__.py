"""A node's agent: the identities of the workloads on one machine, whoever signs them."""
