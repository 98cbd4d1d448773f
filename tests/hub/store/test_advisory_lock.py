"""What several hubs hold: many share, or one is alone, and who dies holds nothing any more."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing

import pytest
from sqlalchemy import func, select, text, update

from hub.store.advisory_lock import MOST_ALONE
from hub.store.store import Store
from hub.store.tables import password
from tests.hub.store.conftest import emptied, url_of


@pytest.fixture
def two(postgres):
    """The stores of two hubs."""
    url = emptied(url_of(postgres))
    with closing(Store(url)) as one, closing(Store(url)) as other:
        yield one, other


async def taken(hold):
    """Whether it can be held within a moment."""
    task = asyncio.ensure_future(hold.__aenter__())
    done, _ = await asyncio.wait([task], timeout=0.3)
    return task if not done else None


@asynccontextmanager
async def timeout(seconds, hold):
    """Holds it, or fails when that takes so long."""
    await asyncio.wait_for(hold.__aenter__(), seconds)
    try:
        yield
    finally:
        await hold.__aexit__(None, None, None)


def test_who_is_alone_waits_for_who_shares_in_another_hub_and_goes_first(two):
    one, other = two

    async def scenario():
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(other.lock.share("a"))
            await stack.enter_async_context(other.lock.alone("b"))
            alone = one.lock.alone("a")
            begun = await taken(alone)
            assert begun is not None, "somebody shares"
            late = await taken(other.lock.share("a"))
            assert late is not None, "whoever comes later waits"
            await stack.aclose()
            await begun
            assert not late.done()
            await alone.__aexit__(None, None, None)
            await late

    asyncio.run(scenario())


def test_a_hub_whose_sessions_end_holds_nothing(two):
    one, other = two

    async def scenario():
        async with one.lock.share("a"):
            await other.write(
                lambda db: db.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
                ).all()
            )
            async with other.lock.alone("a"):
                pass
        async with one.lock.share("a"):
            pass

    asyncio.run(scenario())


def test_who_is_cancelled_while_it_waits_to_be_alone_holds_nothing(two):
    """Such as for a report, when the connection that it came by is lost."""
    one, other = two

    async def scenario():
        async with other.lock.share("a"):
            waits = await taken(one.lock.alone("a"))
            assert waits is not None, "somebody shares"
            waits.cancel()
            await asyncio.wait([waits])
        for _ in range(2):  # the thread that waited may have it for a moment, before or after the first of these
            async with timeout(60, other.lock.share("a")):
                pass
            async with timeout(60, other.lock.alone("a")):
                pass

    asyncio.run(scenario())


class NoThreads(ThreadPoolExecutor):
    """In place of the event loop's own."""

    def submit(self, *_):
        raise AssertionError("the threads of the event loop are for what is soon over")


def test_any_number_that_waits_to_be_alone_takes_none_of_the_loops_threads(two):
    """Each has its turn in the end, and so has who comes meanwhile for another key."""
    one, other = two
    keys = [f"key {number}" for number in range(3 * MOST_ALONE)]
    had = []

    async def be_alone(key):
        async with one.lock.alone(key):
            had.append(key)

    async def waiting():
        query = select(func.count().label("n")).select_from(
            text("pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
        return (await other.one(query)).n

    async def scenario():
        asyncio.get_running_loop().set_default_executor(NoThreads())
        async with AsyncExitStack() as stack:
            for key in keys:
                await stack.enter_async_context(other.lock.share(key))
            tasks = [asyncio.ensure_future(be_alone(key)) for key in keys]
            while await waiting() < MOST_ALONE:
                await asyncio.sleep(0.05)
            async with one.lock.share("another"):
                assert had == []
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert sorted(had) == sorted(keys)


def test_changes_that_wait_for_each_other_are_all_made(two):
    """Each in the order of its own: PostgreSQL undoes one of them, which is run again."""

    def change(first, second):
        def run(db):
            for account in (first, second):
                db.execute(update(password).where(password.c.account == account).values(expires=password.c.expires + 1))
                db.execute(text("SELECT pg_sleep(0.3)"))

        return run

    async def scenario():
        await one.write(
            lambda db: db.execute(
                password.insert(), [{"account": name, "hash": b"", "expires": 0} for name in ("a", "b")]
            )
        )
        await asyncio.gather(one.write(change("a", "b")), other.write(change("b", "a")))
        return [row.expires for row in await one.read(password.select())]

    one, other = two
    assert asyncio.run(scenario()) == [2, 2]
