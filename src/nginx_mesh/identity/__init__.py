"""SPIFFE identity: IDs, the certificate authority and its rotation, key managers, and the SVIDs of workloads."""
