"""What the dashboard shows of a mesh: the graph of its traffic, one workload, and the newest events.

`edges`, `graph` and `workload` make the documents and do no I/O; `server` reads the mesh and serves them.
"""
