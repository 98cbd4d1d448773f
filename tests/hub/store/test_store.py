"""Group commits: what `write` returned is on disk, what failed is not, and neither disturbs the other."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from hub.store import tables
from hub.store.store import Store, sqlite_url, upsert
from hub.store.tables import password

ACCOUNTS = select(password.c.account).order_by(password.c.account)


def add(account):
    def change(db):
        db.execute(insert(password).values(account=account, hash=b"\0", expires=1))
        return account

    return change


def run(database, scenario):
    async def main():
        with closing(Store(database)) as store:
            return await scenario(store)

    return asyncio.run(main())


async def accounts(store):
    return [row.account for row in await store.read(ACCOUNTS)]


def test_written_is_read_and_survives(database):
    async def scenario(store):
        assert await store.write(add("a")) == "a"
        return await accounts(store)

    assert run(database, scenario) == ["a"]
    assert run(database, accounts) == ["a"]


def test_failure_in_a_group_is_undone_alone(database):
    def half(db):
        add("half")(db)
        raise LookupError("no")

    async def scenario(store):
        ends = await asyncio.gather(
            *(store.write(c) for c in (add("a"), half, add("b"), add("a"))), return_exceptions=True
        )
        return ends, await accounts(store)

    ends, found = run(database, scenario)
    assert found == ["a", "b"]
    assert [type(end) for end in ends] == [str, LookupError, str, IntegrityError]


def test_close_commits_what_is_queued(database):
    async def scenario(store):
        writes = [asyncio.ensure_future(store.write(add(str(i)))) for i in range(100)]
        await asyncio.sleep(0)
        return writes

    run(database, scenario)
    assert len(run(database, accounts)) == 100


def test_many_writes_share_commits(database):
    async def scenario(store):
        await asyncio.gather(*(store.write(add(str(i))) for i in range(2000)))
        return (await store.one(select(func.count().label("n")).select_from(password))).n

    assert run(database, scenario) == 2000


def test_a_row_that_is_there_is_changed_in_the_named_columns_only(database):
    async def scenario(store):
        for expires, used in ((1, True), (2, False)):
            row = {"account": "a", "hash": b"\0", "expires": expires, "used": used}
            await store.write(lambda db, row=row: db.execute(upsert(db.dialect.name, password, "expires"), row))
        return [tuple(row) for row in await store.read(select(password))]

    assert run(database, scenario) == [("a", b"\0", 2, True)]


def test_texts_of_errors_have_no_values(database):
    async def scenario(store):
        with pytest.raises(SQLAlchemyError) as wrong:
            await store.read(select(text("nosuch")).where(password.c.account == "s3cret"))
        return str(wrong.value)

    assert "s3cret" not in run(database, scenario)


def test_file_is_private_and_must_be_a_database(tmp_path):
    async def scenario(store):
        return (tmp_path / "db").stat().st_mode & 0o777

    assert run(sqlite_url(tmp_path / "db"), scenario) == 0o600
    (tmp_path / "text").write_text("this is not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(SQLAlchemyError):
        run(sqlite_url(tmp_path / "text"), scenario)


def test_a_file_has_one_hub(tmp_path):
    url = sqlite_url(tmp_path / "db")
    with closing(Store(url)), pytest.raises(OSError, match="several hubs on one database need PostgreSQL"):
        Store(url)
    Store(url).close()


def test_any_number_of_rows_is_read_in_parts(store):
    """Each once and in order, also where the first column does not tell rows apart."""
    task = tables.task.c
    made = [
        {"id": f"{n:02d}", "submitted_at": n // 4, "user_endpoint": "u", "task_group": "g", "function": "f"}
        for n in range(10)
    ]

    async def story():
        await store.write(lambda db: db.execute(insert(tables.task), made[::-1]))
        query = select(task.id, task.submitted_at)
        for most, parts in ((3, [3, 3, 3, 1]), (5, [5, 5]), (11, [10])):
            read = [rows async for rows in store.parts(query, task.submitted_at, task.id, most=most)]
            assert [len(rows) for rows in read] == parts
            assert [row.id for rows in read for row in rows] == [each["id"] for each in made]
        assert [rows async for rows in store.parts(query.where(task.id == "x"), task.id)] == []

    asyncio.run(story())
