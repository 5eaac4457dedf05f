"""Upstream authorities: what signs the mesh's CA. Implementations are found by name."""
