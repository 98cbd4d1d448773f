"""The notice that a user endpoint could not start: as the public package reads it, and as it reaches a real broker."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import EPStatusReport

from lab.broker import PrivateBroker
from tests.wire.session import run, target
from wire.connection import Connection
from wire.consumer import Delivery
from wire.errors import NotDelivered
from wire.failure_notice import failure_notice, publish_failure_notice
from wire.messages import StatusReport, unpack

ID = str(uuid.uuid4())


def test_the_service_reads_an_error_and_a_short_period() -> None:
    report = messagepack.unpack(failure_notice(ID, "no such account"))
    assert isinstance(report, EPStatusReport)
    assert str(report.endpoint_id) == ID
    assert report.global_state == {"error": "no such account", "heartbeat_period": 3}
    assert report.task_statuses == {}


def test_any_text_can_be_told() -> None:
    text = "\ud800 \0 \u202e" + "x" * 10**6
    report = unpack(failure_notice(ID, text))
    assert isinstance(report, StatusReport)
    assert report.global_state["error"] == text


@pytest.mark.system
def test_it_is_in_the_queue_when_it_has_been_published(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        await publish_failure_notice(target(queue, connection_url=broker.url), ID, "no")
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        await connection.consume(queue, arrived.put_nowait, prefetch=1)
        assert (await arrived.get()).body == failure_notice(ID, "no")
        with pytest.raises(NotDelivered):
            await publish_failure_notice(target("no-such-queue", connection_url=broker.url), ID, "no")

    run(broker, session)
