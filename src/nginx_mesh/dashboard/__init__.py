"""The dashboard: a web page (`static/`) about a mesh, and the small server of it."""
