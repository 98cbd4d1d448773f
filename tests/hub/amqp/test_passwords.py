"""Passwords of AMQP accounts: several at a time, only hashes in the file, renewed by heartbeats once they were used."""

from __future__ import annotations

import time

import pytest

from hub.amqp import passwords as module
from hub.amqp.passwords import LIFETIME, Passwords
from tests.hub.units import run


@pytest.fixture
def passwords(store):
    return Passwords(store)


def expiry(store, account):
    return [
        row["expires"] for row in store.read("SELECT expires FROM password WHERE account = ? ORDER BY expires", account)
    ]


def test_older_ones_stay_valid_and_others_are_not(store, passwords):
    async def scenario():
        first, second = [await store.write(lambda db: Passwords.add(db, "uep.a")) for _ in range(2)]
        assert first != second
        assert await passwords.is_valid("uep.a", first)
        assert await passwords.is_valid("uep.a", second)
        assert not await passwords.is_valid("uep.b", first)
        assert not await passwords.is_valid("uep.a", "")
        assert not await passwords.is_valid("", first)
        return first

    password = run(scenario())
    assert passwords.exists("uep.a")
    assert not passwords.exists("uep.b")
    assert all(password.encode() not in bytes(row["hash"]) for row in store.read("SELECT hash FROM password"))


def test_one_that_has_expired_lets_nobody_in(store, passwords):
    async def scenario():
        password = await store.write(lambda db: Passwords.add(db, "a"))
        await store.execute("UPDATE password SET expires = ?", time.time() - 1)
        return await passwords.is_valid("a", password)

    assert not run(scenario())
    assert not passwords.exists("a")


def test_heartbeats_renew_what_was_used_at_most_once_an_hour(store, passwords):
    """What nobody ever logged in with ends after a week, however long the endpoint lives."""

    async def scenario():
        used, _unused = [await store.write(lambda db: Passwords.add(db, "a")) for _ in range(2)]
        await passwords.is_valid("a", used)
        await store.execute("UPDATE password SET expires = 9e9 WHERE NOT used")
        now = time.time() + 1000
        for later in (0, 60, 3500, 3700):
            await store.write(lambda db, later=later: passwords.renew(db, "a", now + later))
            seen.append(expiry(store, "a")[0] - now - LIFETIME)
        assert expiry(store, "a")[1] == 9e9

    seen = []
    run(scenario())
    assert seen == pytest.approx([0, 0, 0, 3700])
    assert module._RENEW_EVERY == 3600
