"""`python -m nginx_mesh.identity`: the identity server."""

from .server.process import main

main()
