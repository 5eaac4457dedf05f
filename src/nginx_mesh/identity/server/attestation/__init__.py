"""How agents prove where they run. Attestors are found by the name of their kind of evidence."""

from .base import Attested, NodeAttestor
from .join_token import JoinTokens

__all__ = ["Attested", "JoinTokens", "NodeAttestor"]
