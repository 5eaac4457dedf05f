"""Resource types: the Kubernetes objects the mesh reads, SMI and NGINX Service Mesh resources, MeshConfig."""
