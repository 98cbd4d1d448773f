"""What is told as failed does not run afterwards: submissions under way, and a queue that somebody reads."""

from __future__ import annotations

import asyncio

import pytest

from hub import failed_starts
from hub.amqp import topology
from hub.failed_starts import FailedStarts
from hub.outcomes import Outcomes
from hub.shared_lock import SharedLock
from lab.waiting import aiountil
from tests.hub.units import StubBroker, add_manager, add_task, add_user_endpoint, change, rows, run


class Site:
    def __init__(self, store):
        self.store = store
        self.broker = StubBroker()
        self.submissions = SharedLock()
        self.failed = FailedStarts(store, self.broker, Outcomes(store, self.broker), self.submissions)

    async def set_up(self):
        self.user_endpoint = await add_user_endpoint(self.store, await add_manager(self.store))
        self.queue = topology.task_queue(self.user_endpoint)
        self.task, _ = await add_task(self.store, self.user_endpoint)

    def open_tasks(self):
        return [row.id for row in rows(self.store, "SELECT id FROM task WHERE ended_at IS NULL")]


@pytest.fixture
def site(store, monkeypatch):
    monkeypatch.setattr(failed_starts, "AGAIN", 0.01)
    made = Site(store)
    run(made.set_up())
    return made


def test_a_submission_that_is_under_way_is_waited_for(site):
    """Its row would be failed before its message is in the queue, where a successor would find it."""

    async def scenario():
        async with site.submissions.share(site.user_endpoint), site.submissions.share(site.user_endpoint):
            failing = asyncio.ensure_future(site.failed.fail(site.user_endpoint, "no account"))
            await asyncio.sleep(0.05)
            assert site.broker.calls == []
            later = asyncio.ensure_future(site.submissions.share(site.user_endpoint).__aenter__())
            await asyncio.sleep(0.05)
            assert not later.done(), "whoever comes later waits until the failure is over"
            async with site.submissions.share("another"):
                pass
        await failing
        await later

    run(scenario())
    assert site.open_tasks() == []
    assert ("purge", site.queue) in site.broker.calls


def test_tasks_of_a_queue_with_a_reader_are_failed_once_it_has_none(site):
    async def scenario():
        site.broker.read_by_others.add(site.queue)
        await site.failed.fail(site.user_endpoint, "killed")
        await site.failed.fail(site.user_endpoint, "killed once more")
        await aiountil(lambda: site.broker.calls.count(("has another reader", site.queue)) > 4, "further looks")
        assert site.open_tasks() == [site.task]
        site.broker.lose()
        await asyncio.sleep(0.05)
        site.broker.connected.set()
        site.broker.read_by_others.clear()
        await aiountil(lambda: not site.failed._later, "the end of it")

    run(scenario())
    assert site.open_tasks() == []
    (sent,) = site.broker.sent
    assert b"killed once more" in sent[1]


@pytest.mark.parametrize("end", ["heartbeat", "deleted"])
def test_a_successor_that_reports_answers_for_all(site, end):
    async def scenario():
        site.broker.read_by_others.add(site.queue)
        await site.failed.fail(site.user_endpoint, "killed")
        if end == "heartbeat":
            await change(site.store, "UPDATE user_endpoint SET heartbeat_at = 1e11")
        else:
            await change(site.store, "DELETE FROM user_endpoint")
        await aiountil(lambda: not site.failed._later, "the end of it")

    run(scenario())
    assert site.open_tasks() == [site.task]
    assert site.broker.sent == []
