"""Support packages: what somebody needs who is to find out what is wrong with a mesh, and nothing that is secret."""
