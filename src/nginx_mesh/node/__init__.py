"""The part of the mesh that runs on every node: it serves the sidecars, identities and reports of the node's pods."""
