"""An index of the mesh's Kubernetes objects, kept up to date by events."""
