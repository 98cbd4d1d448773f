"""The names of the modules that this one was split into, for those who do not import them from there yet."""

from wire.connection import Connection
from wire.consumer import Delivery
from wire.errors import AccessRefused, BrokerError, ConnectionLost, NotDelivered, TooLarge, Unreachable
from wire.failure_notice import publish_once
from wire.publisher import Publisher
from wire.reconnect import stay_connected

__all__ = [
    "AccessRefused",
    "BrokerError",
    "Connection",
    "ConnectionLost",
    "Delivery",
    "NotDelivered",
    "Publisher",
    "TooLarge",
    "Unreachable",
    "publish_once",
    "stay_connected",
]
