"""What can go wrong between a program and its broker. Every text is safe to log: none holds a URL."""

from __future__ import annotations


class BrokerError(Exception):
    """Something that the broker or the network refused."""


class Unreachable(BrokerError):
    """No connection could be made."""


class Unwanted(BrokerError):
    """The broker is there, and does not take this account, or has no such queue for it: to try again is of no use, but
    whoever gave us address and password may have newer ones."""


class AccessRefused(Unwanted):
    """The broker does not accept the user and password of the URL, or does not let them into the virtual host."""


class ConnectionLost(BrokerError):
    """The connection, or a channel of it, was closed; whatever was not confirmed may or may not have arrived."""


class QueueGone(Unwanted, ConnectionLost):
    """The queue or exchange does not exist any more, or this account may not use it."""


class QueueLocked(ConnectionLost):
    """The queue is there, and belongs to another connection (an exclusive queue)."""


class TooLarge(ConnectionLost):
    """The broker closed the channel because a message has more than `limit` bytes; sent again, it would do so again."""

    def __init__(self, text: str, limit: int) -> None:
        super().__init__(text)
        self.limit = limit


class NotDelivered(BrokerError):
    """The broker answered that it could not take or route the message."""


class Refused(NotDelivered):
    """The broker did not take the message: the queue has as much as it may have."""
