"""The names of exchanges, queues, routing keys and accounts in RabbitMQ, and the queue info that tells them to others.

    NAME.commands          hub -> the manager NAME
    NAME.tasks             hub -> the user endpoint NAME
    client.IDENTITY.GROUP  hub -> the client: results of one task group
    results                user endpoint NAME -> hub, through topic exchange `results` with routing key NAME.results
    heartbeats             manager or user endpoint NAME -> hub, likewise

    poison                 what a hub has died of so often that it is tried no more

NAME, IDENTITY and GROUP are UUIDs. The hub publishes to queues by name (the default exchange). Exchanges `commands` and
`tasks` carry nothing; they are there because queue info names an exchange, and an endpoint may look whether it exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wire.printable import printable
from wire.queues import Target

COMMANDS = "commands"
TASKS = "tasks"
RESULTS = "results"
HEARTBEATS = "heartbeats"

POISON = "poison"
DELIVERIES = 20
"""Times that a message of `results` or `heartbeats` is delivered to hubs that die before they have dealt with it."""
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
_TRIED = {"x-delivery-limit": DELIVERIES, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": POISON}
INBOXES: dict[str, dict[str, Any]] = {
    RESULTS: {**QUORUM, **_TRIED},
    HEARTBEATS: {**QUORUM, **_TRIED, "x-single-active-consumer": True},
}
"""What hubs read, with the arguments of a new queue. Reports are read by one hub at a time, in their order."""

COMMAND_LIFE = 120
"""Seconds after which the broker drops an unread start command. The manager refuses one that is older than 180 s, with
a notice that would fail the waiting tasks; dropped in time, they wait until the manager is back."""
CLIENT_QUEUE_LIFE = 14 * 86400
"""Seconds after which the broker drops a result queue that nobody reads; the results stay readable by REST."""

TASK_QUEUE_LIFE = 14 * 86400
"""Seconds after which the broker drops a task queue that nobody reads and nobody adds to (`hub.setup.rabbitmq`); the
hub ends its tasks at that time (`hub.sweeper`)."""
TASK_QUEUES = r"^[0-9a-f-]{36}\.tasks$"
"""The pattern of their names."""
RESULT_QUEUES = r"^client\."
"""The pattern of the names of queues that clients read."""

_LONGEST_ID = 64


def manager_account(endpoint_id: str) -> str:
    """Returns the AMQP user name of a manager."""
    return f"mep.{endpoint_id}"


def user_endpoint_account(endpoint_id: str) -> str:
    """Returns the AMQP user name of a user endpoint."""
    return f"uep.{endpoint_id}"


def client_account(identity_id: str) -> str:
    """Returns the AMQP user name of a user's clients."""
    return f"client.{identity_id}"


def client_queue_prefix(identity_id: str) -> str:
    """Returns the `queue_prefix` of a user; a task group's queue is this prefix and the group's id."""
    return f"{client_account(identity_id)}."


def command_queue(endpoint_id: str) -> str:
    """Returns the queue that a manager reads."""
    return f"{endpoint_id}.commands"


def task_queue(endpoint_id: str) -> str:
    """Returns the queue that a user endpoint reads."""
    return f"{endpoint_id}.tasks"


def routing_key(endpoint_id: str, exchange: str) -> str:
    """Returns the only key with which the broker lets an endpoint publish to `results` or `heartbeats`."""
    return f"{endpoint_id}.{exchange}"


def sender(routing_key: str) -> str:
    """Returns the endpoint that published with `routing_key`. The broker has checked that it was that endpoint.

    A key of another form, which only the hub's own account could use, makes it nobody, fit for a line of the log.
    """
    return printable(routing_key.partition(".")[0], _LONGEST_ID)


def source_info(url: str, exchange: str, queue: str) -> dict[str, Any]:
    """Makes queue info for a queue to consume."""
    return {"connection_url": url, "exchange": exchange, "queue": queue}


def target_info(url: str, exchange: str, endpoint_id: str) -> dict[str, Any]:
    """Makes queue info for an exchange to publish to; its queue has the same name."""
    return {
        **source_info(url, exchange, exchange),
        "queue_publish_kwargs": {
            "exchange": exchange,
            "routing_key": routing_key(endpoint_id, exchange),
            "mandatory": True,
            "properties": {"delivery_mode": 2, "content_type": "application/octet-stream"},
        },
    }


def target(queue: str, content_type: str, **properties: Any) -> Target:
    """Makes a target for what the hub itself publishes. It has no URL: the hub publishes over its own connection."""
    kept: Mapping[str, Any] = {"delivery_mode": 2, "content_type": content_type, **properties}
    return Target("", "", queue, mandatory=True, properties=kept)
