"""The local mesh's only node: pods, containers, volumes, probes, DNS and service addresses."""
