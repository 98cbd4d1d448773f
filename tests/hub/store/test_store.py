"""Group commits: what `write` returned is on disk, what failed is not, and neither disturbs the other."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from hub.store.store import Store, sqlite_url, upsert
from hub.store.tables import password

ACCOUNTS = select(password.c.account).order_by(password.c.account)


def add(account):
    return lambda db: db.execute(insert(password).values(account=account, hash=b"\0", expires=1)).rowcount


def run(path, scenario):
    async def main():
        with closing(Store(sqlite_url(path))) as store:
            return await scenario(store)

    return asyncio.run(main())


async def accounts(store):
    return [row.account for row in await store.read(ACCOUNTS)]


def test_written_is_read_and_survives(tmp_path):
    async def scenario(store):
        assert await store.write(add("a")) == 1
        return await accounts(store)

    assert run(tmp_path / "db", scenario) == ["a"]
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        assert db.execute("SELECT account FROM password").fetchall() == [("a",)]


def test_failure_in_a_group_is_undone_alone(tmp_path):
    def half(db):
        add("half")(db)
        raise LookupError("no")

    async def scenario(store):
        ends = await asyncio.gather(
            *(store.write(c) for c in (add("a"), half, add("b"), add("a"))), return_exceptions=True
        )
        return ends, await accounts(store)

    ends, found = run(tmp_path / "db", scenario)
    assert found == ["a", "b"]
    assert [type(end) for end in ends] == [int, LookupError, int, IntegrityError]


def test_close_commits_what_is_queued(tmp_path):
    async def scenario(store):
        writes = [asyncio.ensure_future(store.write(add(str(i)))) for i in range(100)]
        await asyncio.sleep(0)
        return writes

    run(tmp_path / "db", scenario)
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        assert db.execute("SELECT count(*) FROM password").fetchone() == (100,)


def test_many_writes_share_commits(tmp_path):
    async def scenario(store):
        await asyncio.gather(*(store.write(add(str(i))) for i in range(2000)))
        return (await store.one(select(func.count().label("n")).select_from(password))).n

    assert run(tmp_path / "db", scenario) == 2000


def test_a_row_that_is_there_is_changed_in_the_named_columns_only(tmp_path):
    async def scenario(store):
        for expires, used in ((1, True), (2, False)):
            row = {"account": "a", "hash": b"\0", "expires": expires, "used": used}
            await store.write(lambda db, row=row: db.execute(upsert(db.dialect.name, password, "expires"), row))
        return [tuple(row) for row in await store.read(select(password))]

    assert run(tmp_path / "db", scenario) == [("a", b"\0", 2, True)]


def test_texts_of_errors_have_no_values(tmp_path):
    async def scenario(store):
        await store.write(add("s3cret"))
        with pytest.raises(IntegrityError) as refused:
            await store.write(add("s3cret"))
        with pytest.raises(SQLAlchemyError) as wrong:
            await store.read(select(text("nosuch")).where(password.c.account == "s3cret"))
        return f"{refused.value} {wrong.value}"

    said = run(tmp_path / "db", scenario)
    assert "s3cret" not in said
    assert "password.account" in said


def test_file_is_private_and_must_be_a_database(tmp_path):
    async def scenario(store):
        return (tmp_path / "db").stat().st_mode & 0o777

    assert run(tmp_path / "db", scenario) == 0o600
    (tmp_path / "text").write_text("this is not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(SQLAlchemyError):
        run(tmp_path / "text", scenario)
