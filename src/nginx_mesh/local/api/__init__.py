"""The local mesh's API server: checks objects, stores them in SQLite, and serves them under the paths of Kubernetes."""
