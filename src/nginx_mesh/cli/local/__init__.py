"""The commands about meshes on this machine, and how all commands reach such a mesh.

Only here may the command line import nginx_mesh.local.
"""
