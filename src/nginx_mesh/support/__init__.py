"""Support packages: data for finding out what is wrong with a mesh, without its secrets."""
