"""Runs the migrations on the connection that `migrate.py` hands over, inside its transaction."""

from alembic import context

from nginx_mesh.identity.server.datastore.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=context.config.attributes["connection"].dialect.name != "mysql",
)
with context.begin_transaction():
    context.run_migrations()
