"""Hands alembic the connection that `hub.store.migration` has opened; alembic runs this file."""

from __future__ import annotations

from alembic import context

from hub.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
