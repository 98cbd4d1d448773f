"""A message among the tasks that asks a user endpoint to stop.

Whoever may send it tasks could as well send one that ends it: the message gives nobody a right. Only to programs that
say in their heartbeats that they know it: another would take it for a task that it cannot read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADERS: Mapping[str, Any] = {"command": "stop"}
"""The message's headers; it has no body."""
KNOWS = "stops_on_request"
"""True in the heartbeats of a program that stops when it is asked to."""


def is_one(headers: Mapping[str, Any]) -> bool:
    """Tells whether a message from a task queue asks to stop."""
    return headers.get("command") == HEADERS["command"] and "task_uuid" not in headers
