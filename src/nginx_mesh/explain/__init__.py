"""What would become of a request, and which object decides each step: asked of the sidecars that it would pass."""

from .document import Explanation as Explanation
from .explainer import Explainer as Explainer
from .explainer import Inquiry as Inquiry
from .places import PlaceError as PlaceError
