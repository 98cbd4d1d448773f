"""The end of a task: the first counts, only its own user endpoint's, and it reaches the client whatever breaks."""

from __future__ import annotations

import asyncio

import pytest

from hub.amqp.topology import RESULTS, client_queue_prefix
from hub.outcomes import Outcomes
from tests.hub.units import (
    ALICE,
    StubBroker,
    add_manager,
    add_start,
    add_task,
    add_user_endpoint,
    change,
    from_endpoint,
    new_id,
    rows,
    run,
)
from wire.errors import ConnectionLost
from wire.messages import Result, StatusReport, pack, unpack


@pytest.fixture
def broker():
    return StubBroker()


@pytest.fixture
def outcomes(store, broker):
    return Outcomes(store, broker)


@pytest.fixture
def user_endpoint(store):
    async def add():
        return await add_user_endpoint(store, await add_manager(store))

    return run(add())


def result(sender, task, data="x"):
    return from_endpoint(sender, RESULTS, pack(Result(task, data)))


def queue_of(group, user=ALICE):
    return client_queue_prefix(user.identity.id) + group


async def tasks(store):
    """State of each task, once what was begun before is written."""
    await asyncio.sleep(0)  # begins what was only scheduled
    await store.write(lambda db: None)
    return [
        (row.ended_at is not None, row.result, bool(row.forwarded))
        for row in rows(store, "SELECT * FROM task ORDER BY rowid")
    ]


def test_a_result_is_stored_and_forwarded_as_it_came(store, broker, outcomes, user_endpoint):
    async def scenario():
        task, group = await add_task(store, user_endpoint)
        sent = result(user_endpoint, task)
        await outcomes.on_results([sent])
        assert broker.sent_to(queue_of(group)) == [sent.body]
        assert await tasks(store) == [(True, sent.body, True)]

    run(scenario())


def test_the_first_end_counts_and_only_from_the_endpoint_that_has_the_task(
    store, broker, outcomes, user_endpoint, caplog
):
    async def scenario():
        task, group = await add_task(store, user_endpoint)
        stranger = await add_user_endpoint(store, await add_manager(store))
        await outcomes.on_results([result(stranger, task, "forged"), result(user_endpoint, new_id(), "unknown")])
        assert broker.sent == []
        await outcomes.on_results([result(user_endpoint, task, "first"), result(user_endpoint, task, "second")])
        await outcomes.on_results([result(user_endpoint, task, "third")])
        return [unpack(body).data for body in broker.sent_to(queue_of(group))]

    assert run(scenario()) == ["first"]
    assert sum("it has no task" in line for line in caplog.messages) == 2


@pytest.mark.parametrize("body", [b"", b"\x01{", pack(StatusReport(new_id(), {}))])
def test_what_is_no_result_is_dropped_alone(store, broker, outcomes, user_endpoint, body):
    async def scenario():
        task, group = await add_task(store, user_endpoint)
        await outcomes.on_results([from_endpoint(user_endpoint, RESULTS, body), result(user_endpoint, task)])
        assert len(broker.sent_to(queue_of(group))) == 1

    run(scenario())


def test_a_client_that_asked_for_no_queue_gets_none(store, broker, outcomes, user_endpoint):
    async def scenario():
        task, _ = await add_task(store, user_endpoint, has_queue=False)
        await outcomes.on_results([result(user_endpoint, task)])
        assert broker.sent == []
        assert [(ended, forwarded) for ended, _, forwarded in await tasks(store)] == [(True, True)]

    run(scenario())


def test_what_was_not_forwarded_is_forwarded_on_the_next_connection_and_once(store, broker, outcomes, user_endpoint):
    async def scenario():
        task, group = await add_task(store, user_endpoint)
        broker.lose()
        with pytest.raises(ConnectionLost):
            await outcomes.on_results([result(user_endpoint, task)])
        assert [(ended, forwarded) for ended, _, forwarded in await tasks(store)] == [(True, False)]
        broker.connected.set()
        await outcomes.forward_remaining()
        await tasks(store)
        await outcomes.forward_remaining()
        assert len(broker.sent_to(queue_of(group))) == 1

    run(scenario())


def test_what_was_not_forwarded_is_read_in_slices(store, broker, outcomes, user_endpoint, monkeypatch):
    """More may be stored than memory holds: no second result is read before the first is on its way."""
    monkeypatch.setattr("hub.outcomes.SLICE", 1)
    sent_before_read = []

    async def scenario():
        ended = [await add_task(store, user_endpoint) for _ in range(3)]
        for task, _ in ended:
            await change(
                store,
                "UPDATE task SET ended_at = 1, result = :result WHERE id = :id",
                result=b"%d" % len(task),
                id=task,
            )
        reading = store.read

        async def read(query, **values):
            sent_before_read.append(len(broker.sent))
            return await reading(query, **values)

        monkeypatch.setattr(store, "read", read)
        await outcomes.forward_remaining()
        assert [forwarded for *_, forwarded in await tasks(store)] == [True] * 3
        assert {target.routing_key for target, _ in broker.sent} == {queue_of(group) for _, group in ended}

    run(scenario())
    assert sent_before_read == [0, 0, 1, 2], "first the ids of all"


def test_what_waits_for_a_full_queue_is_not_read_again_and_again(store, broker, outcomes, user_endpoint, monkeypatch):
    """However much a client does not read, the others are served meanwhile: nothing reads all of it at once."""
    monkeypatch.setattr("hub.outcomes.LISTED", 4)
    monkeypatch.setattr("hub.outcomes.SLICE", 4)
    read_rows = []

    async def scenario():
        _, group = await add_task(store, user_endpoint)
        for _ in range(9):
            await add_task(store, user_endpoint)
        await change(store, "UPDATE task SET task_group = :group, ended_at = 1, result = :r", group=group, r=b"x")
        _, other = await add_task(store, user_endpoint)
        await change(store, "UPDATE task SET ended_at = 2, result = :r WHERE ended_at IS NULL", r=b"x")
        broker.full.add(queue_of(group))
        reading = store.read

        async def read(query, **values):
            rows = await reading(query, **values)
            read_rows.append(len(rows))
            return rows

        monkeypatch.setattr(store, "read", read)
        await outcomes.forward_remaining()
        assert len(broker.sent_to(queue_of(other))) == 1
        broker.full.clear()
        await outcomes.forward_remaining()
        assert len(broker.sent_to(queue_of(group))) == 10
        assert all(forwarded for *_, forwarded in await tasks(store))

    run(scenario())
    assert max(read_rows) <= 4


def test_a_client_queue_that_is_gone_holds_nobody_up(store, broker, outcomes, user_endpoint, caplog):
    async def scenario():
        (first, group), (second, other) = await add_task(store, user_endpoint), await add_task(store, user_endpoint)
        broker.unroutable = {queue_of(group)}
        await outcomes.on_results([result(user_endpoint, first), result(user_endpoint, second)])
        assert len(broker.sent_to(queue_of(other))) == 1
        assert [forwarded for *_, forwarded in await tasks(store)] == [True, True]

    run(scenario())
    assert "the client can still ask for it" in caplog.text


def test_all_that_wait_for_an_endpoint_fail_with_its_words(store, broker, outcomes, user_endpoint):
    async def scenario():
        done, group = await add_task(store, user_endpoint)
        await outcomes.on_results([result(user_endpoint, done, "value")])
        waiting, other_group = await add_task(store, user_endpoint)
        elsewhere = await add_user_endpoint(store, await add_manager(store))
        await add_task(store, elsewhere)
        await outcomes.fail_waiting(user_endpoint, "CODE", "no such account")
        (body,) = broker.sent_to(queue_of(other_group))
        failure = unpack(body)
        assert failure.task_id == waiting
        assert (failure.error_details.code, failure.error_details.user_message) == ("CODE", "no such account")
        assert len(broker.sent_to(queue_of(group))) == 1
        assert [ended for ended, *_ in await tasks(store)] == [True, True, False]

    run(scenario())


def test_the_first_result_of_a_start_is_on_its_timeline(store, outcomes, user_endpoint):
    async def scenario():
        for ended in (1, None):
            await add_start(store, user_endpoint, ended_at=ended)
        for _ in range(2):
            task, _ = await add_task(store, user_endpoint)
            await outcomes.on_results([result(user_endpoint, task)])
            seen.append([row.first_result_at for row in rows(store, "SELECT * FROM start ORDER BY rowid")])

    seen = []
    run(scenario())
    assert seen[0] == seen[1]
    assert seen[0][0] is None
    assert seen[0][1] is not None


def test_what_a_full_queue_does_not_take_waits_and_comes_later(store, broker, outcomes, user_endpoint, monkeypatch):
    monkeypatch.setattr("hub.outcomes.LEFT_AFTER", 0.01)

    async def scenario():
        sender = user_endpoint
        waiting, group = await add_task(store, sender)
        other, another_group = await add_task(store, sender)
        broker.full.add(queue_of(group))
        await outcomes.on_results([result(sender, waiting), result(sender, other)])
        assert await tasks(store) == [(True, pack(Result(waiting, "x")), False), (True, pack(Result(other, "x")), True)]
        running = asyncio.ensure_future(outcomes.run())
        await asyncio.sleep(0.05)
        assert broker.sent_to(queue_of(group)) == []
        broker.full.clear()
        while not all(forwarded for _, _, forwarded in await tasks(store)):
            await asyncio.sleep(0.01)
        running.cancel()
        assert broker.sent_to(queue_of(group))
        assert len(broker.sent_to(queue_of(another_group))) == 1

    run(scenario())


def test_stored_results_are_read_a_few_at_a_time(store, broker, outcomes, user_endpoint, monkeypatch):
    monkeypatch.setattr("hub.outcomes.SLICE_BYTES", 2000)
    together = []
    original = outcomes._forward

    async def forward(forwards):
        together.append(len(forwards))
        await original(forwards)

    async def scenario():
        sender = user_endpoint
        broker.lose()
        for _ in range(5):
            task, _ = await add_task(store, sender)
            with pytest.raises(ConnectionLost):
                await outcomes.on_results([result(sender, task, "x" * 800)])
        broker.connected.set()
        monkeypatch.setattr(outcomes, "_forward", forward)
        await outcomes.forward_remaining()

    run(scenario())
    assert together == [2, 2, 1]
