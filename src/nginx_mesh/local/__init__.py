"""The local runtime: a mesh on one Linux machine, its pods as processes in network namespaces."""
