"""`python -m nginx_mesh.sidecar`: build the sidecar image and print where it is."""

import sys

from .image import ImageError, ensure_image

try:
    print(ensure_image(lambda line: print(f"image: {line}", file=sys.stderr, flush=True)))
except ImageError as error:
    sys.exit(f"error: {error}")
