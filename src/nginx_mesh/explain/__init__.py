"""What would become of a request, and which object decides each step: asked of the sidecars that it would pass."""

from .explainer import Explainer as Explainer
from .places import PlaceError as PlaceError
