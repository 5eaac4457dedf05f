"""Identities from a SPIRE deployment instead of our own authority."""
