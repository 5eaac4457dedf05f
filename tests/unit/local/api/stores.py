"""What tests look at in a store."""

from __future__ import annotations

from nginx_mesh.local.api.store import Store


def names(store: Store) -> list[str]:
    """The objects of a store, `KIND/NAME` each."""
    return [f"{item['kind']}/{item['metadata']['name']}" for item in store.list()]
