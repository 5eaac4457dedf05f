"""The local mesh's network: namespaces, interfaces, routes, addresses, and peering with other local meshes."""
