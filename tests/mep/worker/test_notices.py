"""Notices of failed starts, to a real broker: delivered, refused, or with no address at all."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from lab.broker import PrivateBroker
from mep.worker.notices import Notices
from tests.mep.commands import UEP
from tests.wire.session import run
from wire.connection import Connection
from wire.consumer import Delivery
from wire.failure_notice import failure_notice

EXCHANGE = "amq.topic"


def credentials(url: str, routing_key: str) -> dict[str, Any]:
    """The part of `amqp_creds` that a notice needs, for an exchange that every broker has."""
    publish = {"exchange": EXCHANGE, "routing_key": routing_key, "mandatory": True, "properties": {"delivery_mode": 2}}
    return {
        "endpoint_id": UEP,
        "heartbeat_queue_info": {
            "connection_url": url,
            "exchange": EXCHANGE,
            "queue": "q",
            "queue_publish_kwargs": publish,
        },
    }


@pytest.mark.parametrize(
    "incomplete", [{}, {"endpoint_id": UEP}, {"endpoint_id": "x", "heartbeat_queue_info": {}}, {"endpoint_id": 7}]
)
def test_a_notice_that_has_no_address_is_given_up(incomplete: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(Notices().send(incomplete, "no", "r1")) is False
    assert "[r1] failure notice not sent" in caplog.text


@pytest.mark.system
def test_a_notice_is_in_the_queue_when_it_has_been_sent(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        bound = asyncio.Event()
        channel = await connection.channel()
        channel.queue_bind(queue, EXCHANGE, routing_key=queue, callback=lambda _: bound.set())
        await bound.wait()
        assert await Notices().send(credentials(broker.url, queue), "no account", "r1")
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        await connection.consume(queue, arrived.put_nowait, prefetch=1)
        assert (await arrived.get()).body == failure_notice(UEP, "no account")

    run(broker, session)


@pytest.mark.system
def test_who_is_not_let_in_is_not_tried_again(broker: PrivateBroker, caplog: pytest.LogCaptureFixture) -> None:
    user, host = broker.url.removeprefix("amqp://").split("@")
    url = f"amqp://{user.split(':')[0]}:{quote('wrong password')}@{host}"
    assert asyncio.run(Notices().send(credentials(url, "q"), "no", "r1")) is False
    assert "failure notice not sent" in caplog.text
    assert "next attempt" not in caplog.text
    assert "wrong" not in caplog.text, "no secret in the log"
