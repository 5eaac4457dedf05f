"""How agents prove where they run. There is one attestor for each kind of evidence."""

from .base import Attested, NodeAttestor
from .join_token import JoinTokens

__all__ = ["Attested", "JoinTokens", "NodeAttestor"]
