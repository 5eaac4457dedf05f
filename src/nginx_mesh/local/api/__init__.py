"""The local mesh's API server: objects in SQLite, admitted, stored and served under Kubernetes' paths."""
