"""Versions of the schema, for Alembic. `migrate.py` runs them; `env.py` and `versions/` are loaded by path."""
