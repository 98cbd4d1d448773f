"""What the monitor tells the worker of user endpoints and of who is held back, for `mep ps` and the API.

Objects of fixed fields and bounded texts. What a user endpoint says of itself (`figures`) is passed on as it came: the
worker, which has no rights, makes sense of it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages.breaker import Breaker
from mep.monitor.stages.quota import Quota
from mep.processes.printable import escaped
from mep.profile.sections.limits import Limits

_MOST_TEXT = 500
_MOST_ERRORS = 10


def user_endpoint(endpoint: UserEndpoint) -> dict[str, Any]:
    """What is told of one that runs."""
    checked_in = endpoint.checked_in_after
    return {
        "name": endpoint.name,
        "account": endpoint.account.name,
        "uid": endpoint.account.uid,
        "identity": endpoint.command.requester[:_MOST_TEXT],
        "username": endpoint.command.requester_name[:_MOST_TEXT],
        "request": endpoint.command.request_id,
        "state": endpoint.state.value,
        "since": round(time.time() - (time.monotonic() - endpoint.started), 1),
        "checked_in_after": None if checked_in is None else round(checked_in, 3),
        "adopted": endpoint.adopted,
        "pid": endpoint.pid,
        "scope": endpoint.scope,
        "cgroup": endpoint.limits.own_folder(),
        "configuration": endpoint.configuration,
        "jobs": endpoint.jobs[:_MOST_TEXT],
        "ending": endpoint.ending[:_MOST_TEXT],
        "figures": endpoint.figures.decode("ascii", "replace"),
    }


def held_back(
    breaker: Breaker, quota: Quota, limits: Limits, running: Iterable[UserEndpoint]
) -> Iterator[dict[str, Any]]:
    """Accounts that get no new user endpoint now, and until when (seconds of the wall clock; None: nobody knows)."""
    for uid, seconds, reason in breaker.held():
        yield _held("breaker", uid, time.time() + seconds, reason)
    for uid, left, reason in quota.held(limits, [endpoint.account.uid for endpoint in running]):
        yield _held("limit", uid, None if left is None else time.time() + left, reason)


def _held(kind: str, uid: int, until: float | None, reason: str) -> dict[str, Any]:
    return {"kind": kind, "uid": uid, "until": None if until is None else round(until), "reason": reason[:_MOST_TEXT]}


class LastErrors(logging.Handler):
    """The last errors of the log, for `mep status`."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MOST_ERRORS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line. Never raises."""
        text = escaped(record.getMessage()[:_MOST_TEXT])
        self._lines.append({"time": round(record.created), "level": record.levelname, "text": text})

    def lines(self) -> list[dict[str, Any]]:
        """The oldest first."""
        return list(self._lines)
