"""nginx-meshctl: the command line of the mesh."""
