"""A database of any earlier version becomes one of this version with all that is in it; a later one is left alone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text

from hub import endpoints
from hub.store import tables
from hub.store.migration import NewerDatabase
from hub.store.store import Store, _engine, sqlite_url
from hub.store.tables import metadata

OF_0_2 = Path(__file__).with_name("hub-0.2.sql").read_text()
TABLES = ("token", "password", "function", "endpoint", "user_endpoint", "start", "task_group", "task")


def rows(path):
    """What is in the file that release 0.2 had a column for; `start` had no id, and records no table of their own."""
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(":memory:")) as of_0_2:
        of_0_2.executescript(OF_0_2)
        found = {}
        for table in TABLES:
            columns = ", ".join(row[1] for row in of_0_2.execute(f"PRAGMA table_info({table})"))
            has_records = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'endpoint_record'").fetchone()
            rows = "endpoint JOIN endpoint_record USING (id)" if table == "endpoint" and has_records else table
            found[table] = db.execute(f"SELECT {columns} FROM {rows} ORDER BY 1, 2").fetchall()
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


def test_what_is_listed_of_endpoints_is_found_in_their_records(database, open_version):
    """On both databases, also names that no database takes; short columns come before long ones."""
    said = {"display_name": None, "multi_user": True, "public": False, "metadata": {}, "subscription_uuid": None}
    records = {
        "a": {"endpoint_name": "one", "allowed_functions": None, "admins": None, **said},
        "b": {"endpoint_name": "\ud800\0", "allowed_functions": ["f"], "admins": ["me", "you", "me"], **said}
        | {"display_name": "Two", "authentication_policy": "p"},
    }
    with open_version("0002") as db:
        for endpoint, record in records.items():
            row = {"id": endpoint, "owner": "o", "record": json.dumps(record), "multi_user": True, "public": False}
            db.execute(text("INSERT INTO endpoint (id, owner, record, multi_user, public, heartbeat_at) VALUES"
                            " (:id, :owner, :record, :multi_user, :public, 5)"), row)  # fmt: skip
    with closing(Store(database)) as store:
        one, two = (asyncio.run(endpoints.read_manager(store, endpoint)) for endpoint in records)
        assert (one.name, one.display_name, one.policy, one.allowed_functions, one.admins) == (
            "one", None, None, None, frozenset()
        )  # fmt: skip
        assert (two.name, two.display_name, two.policy, two.allowed_functions) == ("??", "Two", "p", ["f"])
        assert (two.admins, two.seen_at, two.public) == ({"me", "you"}, 5, False)
        kept = {row.id: json.loads(row.record) for row in store._fetch(select(tables.endpoint_record), {})}
        assert kept == records
        if database.get_backend_name() == "sqlite":
            names = [row.name for row in store._fetch(text("SELECT name FROM pragma_table_info('endpoint')"), {})]
            assert names[-2:] == ["allowed_functions", "report"]


@pytest.fixture
def open_version(database):
    """Opens a database of an earlier version's tables, to put something into them."""

    @contextmanager
    def opened(version):
        config = Config()
        config.set_main_option("script_location", "hub.store:migrations")
        engine = _engine(database)
        with engine.begin() as db:
            config.attributes["connection"] = db
            command.upgrade(config, version)
            yield db
        engine.dispose()

    return opened


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
