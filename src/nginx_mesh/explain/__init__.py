"""Explains what would become of a request, and which object decides each step, by asking the sidecars involved."""

from .explainer import Explainer as Explainer
from .explainer import ExplainRequest as ExplainRequest
from .resolve import ResolveError as ResolveError
