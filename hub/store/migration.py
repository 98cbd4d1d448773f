"""Brings a database to the tables of this version, whatever version of the hub has written it."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

_ONE_AT_A_TIME = 7153021540316127341
"""The advisory lock of PostgreSQL that is held meanwhile: several hubs may start at the same moment."""


class NewerDatabase(Exception):
    """A later version of the hub has changed the tables; the text says what to do."""


def upgrade(engine: Engine) -> None:
    """Makes or changes the tables, in one transaction.

    Raises:
        NewerDatabase: they are those of a later version of the hub.
        SQLAlchemyError: they cannot be changed.
    """
    config = Config()
    config.set_main_option("script_location", "hub.store:migrations")
    script = ScriptDirectory.from_config(config)
    with engine.begin() as db:
        if db.dialect.name == "postgresql":
            db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
        version = MigrationContext.configure(db).get_current_revision()
        if version == script.get_current_head():
            return
        if version is not None and version not in {step.revision for step in script.walk_revisions()}:
            raise NewerDatabase(
                f"its tables have version {version}, and this mep-hub knows them up to {script.get_current_head()}:"
                " install the mep-hub that it was last used with, or a later one"
            )
        config.attributes["connection"] = db
        command.upgrade(config, "head")
