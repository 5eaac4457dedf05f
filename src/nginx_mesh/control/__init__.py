"""The control plane: what the mesh is to be, from Kubernetes objects to the state of every sidecar, and how it is."""
