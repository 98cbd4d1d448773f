"""What an AMQP account may do: read its own queues and publish under its own routing keys, nothing else.

The broker asks for every queue, exchange and routing key that a connection uses (`hub.routes.broker`). Nobody but the
hub may configure anything.
"""

from __future__ import annotations

from hub.amqp import topology
from hub.amqp.topology import HEARTBEATS, RESULTS


def may(account: str, kind: str, name: str, permission: str) -> bool:
    """Tells whether `account` has `permission` (configure, write, read) on the `kind` (queue, exchange) `name`."""
    if kind == "queue" and permission == "read":
        return _may_consume(account, name)
    if permission == "write":
        # Writing to the exchange is publishing. Writing to the queue behind it (they share a name) would be binding
        # it, which also takes a read permission on an exchange, and that nobody has. It is granted because RabbitMQ
        # from 4.2.6 on wants some permission for the passive declare by which public endpoints look for the queue.
        return kind in ("queue", "exchange") and name in _published(account)
    return False


def may_publish(account: str, exchange: str, permission: str, routing_key: str) -> bool:
    """Tells whether `account` may use `routing_key` on `exchange`."""
    return permission == "write" and routing_key == _published(account).get(exchange)


def _may_consume(account: str, queue: str) -> bool:
    kind, _, owner = account.partition(".")
    if kind == "mep":
        return queue == topology.command_queue(owner)
    if kind == "uep":
        return queue == topology.task_queue(owner)
    return kind == "client" and queue.startswith(topology.client_queue_prefix(owner))


def _published(account: str) -> dict[str, str]:
    """Returns the exchanges that `account` publishes to, each with its one routing key."""
    kind, _, owner = account.partition(".")
    exchanges = {"mep": (HEARTBEATS,), "uep": (RESULTS, HEARTBEATS)}.get(kind, ())
    return {exchange: topology.routing_key(owner, exchange) for exchange in exchanges}
