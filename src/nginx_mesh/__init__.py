"""A service mesh on open-source NGINX: see docs/architecture.md."""
