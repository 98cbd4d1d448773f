"""Passwords of AMQP accounts: several at a time, only hashes in the file, renewed by heartbeats once they were used."""

from __future__ import annotations

import time

import pytest

from hub.amqp import passwords as module
from hub.amqp.passwords import LIFETIME, Passwords
from tests.hub.units import change, rows, run


@pytest.fixture
def passwords(store):
    return Passwords(store)


def expiry(store, account):
    found = "SELECT expires FROM password WHERE account = :account ORDER BY expires"
    return [row.expires for row in rows(store, found, account=account)]


def test_older_ones_stay_valid_and_others_are_not(store, passwords):
    async def scenario():
        # Two hubs, or one before and after a restart: each remembers its own.
        first, second = [await store.write(lambda db: Passwords(store).give(db, "uep.a")) for _ in range(2)]
        assert first != second
        assert await passwords.is_valid("uep.a", first)
        assert await passwords.is_valid("uep.a", second)
        assert not await passwords.is_valid("uep.b", first)
        assert not await passwords.is_valid("uep.a", "")
        assert not await passwords.is_valid("", first)
        return first

    password = run(scenario())
    assert run(passwords.exists("uep.a"))
    assert not run(passwords.exists("uep.b"))
    assert all(password.encode() not in bytes(row.hash) for row in rows(store, "SELECT hash FROM password"))


def test_one_that_has_expired_lets_nobody_in(store, passwords):
    async def scenario():
        password = await store.write(lambda db: passwords.give(db, "a"))
        await change(store, "UPDATE password SET expires = :expires", expires=time.time() - 1)
        return await passwords.is_valid("a", password)

    assert not run(scenario())
    assert not run(passwords.exists("a"))


def test_heartbeats_renew_what_was_used_at_most_once_an_hour(store, passwords):
    """What nobody ever logged in with ends after a week, however long the endpoint lives."""

    async def scenario():
        used, _unused = [await store.write(lambda db: Passwords(store).give(db, "a")) for _ in range(2)]
        await passwords.is_valid("a", used)
        await change(store, "UPDATE password SET expires = 9e9 WHERE NOT used")
        now = time.time() + 1000
        for later in (0, 60, 3500, 3700):
            await store.write(lambda db, later=later: passwords.renew(db, "a", now + later))
            seen.append(expiry(store, "a")[0] - now - LIFETIME)
        assert expiry(store, "a")[1] == 9e9

    seen = []
    run(scenario())
    assert seen == pytest.approx([0, 0, 0, 3700])
    assert module._RENEW_EVERY == 3600


def test_one_is_given_again_for_a_day_instead_of_a_new_one_for_each_submission(store, passwords, monkeypatch):
    async def scenario():
        given = {await give() for _ in range(20)}
        assert len(given) == len(expiry(store, "a")) == 1
        clock[0] += module.REUSE - 10
        assert {await give()} == given
        assert expiry(store, "a") == [pytest.approx(clock[0] + LIFETIME)], "as good as a new one"
        clock[0] += 20
        assert not {await give()} & given
        assert len(expiry(store, "a")) == 2
        await change(store, "DELETE FROM password")  # as a lock does
        last = await give()
        assert await passwords.is_valid("a", last)
        await store.write(lambda db: passwords.forget_old(db, clock[0] + LIFETIME + 1))
        assert (expiry(store, "a"), passwords._newest, passwords._renewed) == ([], {}, {})

    async def give():
        return await store.write(lambda db: passwords.give(db, "a"))

    clock = [time.time()]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    run(scenario())


def test_one_whose_change_was_undone_is_not_given_again(store, passwords):
    def fails(db):
        undone.append(passwords.give(db, "a"))
        raise ValueError

    async def scenario():
        with pytest.raises(ValueError):
            await store.write(fails)
        password = await store.write(lambda db: passwords.give(db, "a"))
        assert [password] != undone
        assert await passwords.is_valid("a", password)

    undone = []
    run(scenario())
