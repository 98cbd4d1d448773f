"""A database of any earlier version becomes one of this version with all that is in it; a later one is left alone."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from hub.store.migration import NewerDatabase
from hub.store.store import Store, sqlite_url
from hub.store.tables import metadata

OF_0_2 = Path(__file__).with_name("hub-0.2.sql").read_text()
TABLES = ("token", "password", "function", "endpoint", "user_endpoint", "start", "task_group", "task")


def rows(path):
    """What is in the file that release 0.2 had a column for; `start` had no id."""
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(":memory:")) as of_0_2:
        of_0_2.executescript(OF_0_2)
        found = {}
        for table in TABLES:
            columns = ", ".join(row[1] for row in of_0_2.execute(f"PRAGMA table_info({table})"))
            found[table] = db.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
        return found


def test_nothing_of_a_file_of_release_0_2_is_lost(tmp_path):
    path = tmp_path / "hub.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OF_0_2)
    before = rows(path)
    assert all(before.values()), "there is something in each table"
    for _ in range(2):
        Store(sqlite_url(path)).close()
        assert rows(path) == before
    with closing(sqlite3.connect(path)) as db:
        (plan,) = db.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM task WHERE ended_at IS NOT NULL AND task.forwarded = 0"
        ).fetchall()
    assert "task_unforwarded" in plan[-1], "and not all results of two weeks are looked through"


def test_the_steps_make_the_tables_that_the_hub_knows(store):
    with store._writes.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_database_of_a_later_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "hub.db"

    async def change():
        with closing(Store(sqlite_url(path))) as store:
            await store.write(lambda db: db.execute(text("UPDATE alembic_version SET version_num = '9999'")))

    asyncio.run(change())
    before = path.read_bytes()
    with pytest.raises(NewerDatabase, match=r"version 9999, .* up to \d{4}: install the mep-hub"):
        Store(sqlite_url(path))
    assert path.read_bytes() == before
