"""Run by alembic for each command: on the connection that `coordinator.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from coordinator.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    **context.config.attributes["options"],
)
with context.begin_transaction():
    context.run_migrations()
