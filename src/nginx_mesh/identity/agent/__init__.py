"""A node's agent, which obtains the identities of the workloads on one machine, whoever signs them."""
