"""The kinds of Kubernetes workloads."""

from __future__ import annotations

POD_OWNERS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
"""Kinds whose controllers make pods from a template in their spec."""

WORKLOADS = (*POD_OWNERS, "Pod")
"""What pods are named by: what made them, or themselves."""
