"""The local mesh's network: namespaces, bridges, addresses, and the ways to other local meshes."""
