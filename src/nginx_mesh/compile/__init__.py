"""Pure functions from the catalog to sidecar state. No I/O, no clock."""
