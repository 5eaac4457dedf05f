"""Computes the state of sidecars from the catalog, without I/O and without a clock."""
