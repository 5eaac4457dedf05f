"""Identities from a SPIRE deployment instead of an authority of ours."""
