"""SPIFFE identity: an identity server that signs SVIDs, and agents that obtain them for the workloads of a machine."""
