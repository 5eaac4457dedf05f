"""The mesh as facts: an index of Kubernetes objects, fed by events."""
