"""What the types cannot say: whether an object makes sense, alone and together with others."""

from __future__ import annotations

from .objects import validate
from .references import validate_references

__all__ = ["validate", "validate_references"]
