"""`python -m nginx_mesh.identity`: the identity server."""

from .process import main

main()
