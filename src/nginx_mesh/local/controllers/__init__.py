"""Workload controllers: pure functions from a workload and its pods to what to do next."""
