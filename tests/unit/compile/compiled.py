"""Compiles a few objects for tests."""

from __future__ import annotations

from nginx_mesh.api.meta import Object
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.compile.check import check
from nginx_mesh.compile.outbound import outbound
from nginx_mesh.protocol.state import MtlsMode, State


def catalog_of(*objects: Object) -> Catalog:
    """A catalog with these objects."""
    catalog = Catalog()
    for obj in objects:
        catalog.apply(Upsert(obj))
    return catalog


def compiled(*objects: Object, mode: MtlsMode = "permissive", settings: MeshSettings | None = None) -> State:
    """The shared entries for these objects."""
    return outbound(catalog_of(*objects), settings or MeshSettings(), mode)


def problems(policy: Object, *objects: Object) -> list[str]:
    """The warnings about the first object, given the others."""
    return [f"{warning.field} {warning.reason}" for warning in check(catalog_of(policy, *objects), policy.key)]
