"""The commands about SPIFFE identities."""
