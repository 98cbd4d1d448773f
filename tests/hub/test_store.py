"""Group commits: what `write` returned is on disk, what failed is not, and neither disturbs the other."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from hub.store import Store


def insert(account):
    return lambda db: (
        db.execute("INSERT INTO password(account, hash, expires) VALUES (?, x'00', 1)", (account,)).rowcount
    )


def run(path, scenario):
    async def main():
        with closing(Store(path)) as store:
            return await scenario(store)

    return asyncio.run(main())


def test_written_is_read_and_survives(tmp_path):
    async def scenario(store):
        assert await store.write(insert("a")) == 1
        return [row["account"] for row in store.read("SELECT account FROM password")]

    assert run(tmp_path / "db", scenario) == ["a"]
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        assert db.execute("SELECT account FROM password").fetchall() == [("a",)]


def test_failure_in_a_group_is_undone_alone(tmp_path):
    def half(db):
        insert("half")(db)
        raise LookupError("no")

    async def scenario(store):
        ends = await asyncio.gather(
            *(store.write(c) for c in (insert("a"), half, insert("b"), insert("a"))), return_exceptions=True
        )
        return ends, {row["account"] for row in store.read("SELECT account FROM password")}

    ends, accounts = run(tmp_path / "db", scenario)
    assert accounts == {"a", "b"}
    assert [type(end) for end in ends] == [int, LookupError, int, sqlite3.IntegrityError]


def test_close_commits_what_is_queued(tmp_path):
    async def scenario(store):
        writes = [asyncio.ensure_future(store.write(insert(str(i)))) for i in range(100)]
        await asyncio.sleep(0)
        return writes

    run(tmp_path / "db", scenario)
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        assert db.execute("SELECT count(*) FROM password").fetchone() == (100,)


def test_many_writes_share_commits(tmp_path):
    async def scenario(store):
        await asyncio.gather(*(store.write(insert(str(i))) for i in range(2000)))
        return store.one("SELECT count(*) AS n FROM password")["n"]

    assert run(tmp_path / "db", scenario) == 2000


def test_file_is_private_and_must_be_a_database(tmp_path):
    async def scenario(store):
        return (tmp_path / "db").stat().st_mode & 0o777

    assert run(tmp_path / "db", scenario) == 0o600
    (tmp_path / "text").write_text("this is not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(sqlite3.DatabaseError):
        run(tmp_path / "text", scenario)
