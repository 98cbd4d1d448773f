"""What a task that has not ended waits for: said of what heartbeats tell, when somebody asks.

    waiting-for-ep      its user endpoint is not there: the start is under way, or the manager is away
    waiting-for-nodes   its user endpoint is there and has no workers: a batch job queues, or an environment is made
    waiting-for-launch  all workers run tasks that came before it
    running             there are workers for it

User endpoints tell how many workers they have, not which task each of them runs. Tasks begin in the order in which they
came, so the oldest that have not ended are those that run, as many as there are workers. With GlobusMPIEngine, where a
task may take the nodes of several, the later ones of them may still wait.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, bindparam, select

from hub import endpoints
from hub.store import tables
from hub.store.store import Store
from wire.printable import printable

MOST_WORKERS = 10_000
"""Of one user endpoint; more are not believed."""
COUNTED = 1000
"""Tasks that wait for workers of one user endpoint, of which each is told how many are before it."""
_LONGEST_QUEUE = 60
MOST_TOLD = 300
"""Characters of what a user endpoint says of itself."""

_USER_ENDPOINT = select(tables.user_endpoint).where(tables.user_endpoint.c.id == bindparam("which"))
_MANAGER = select(tables.endpoint).where(tables.endpoint.c.id == bindparam("which"))
_LAST_START = (
    select(tables.start)
    .where(tables.start.c.user_endpoint == bindparam("which"))
    .order_by(tables.start.c.id.desc())
    .limit(1)
)
_OLDEST = (
    select(tables.task.c.id)
    .where(tables.task.c.user_endpoint == bindparam("which"), tables.WAITS)
    .order_by(tables.task.c.submitted_at)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class State:
    """`status` is a word of the public package's TaskState; `reason` is for the user."""

    status: str
    reason: str


class TaskStates:
    """Finds the states of tasks for one request; each user endpoint is looked up once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}

    async def of(self, task: str, user_endpoint: str) -> State:
        """Returns the state of a task that has not ended."""
        seen = self._seen.get(user_endpoint)
        if seen is None:
            seen = self._seen[user_endpoint] = await self._look(user_endpoint)
        if task in seen.running:
            return State("running", "Your user endpoint has a worker for it")
        return _with_place(seen.waiting, seen.places, task)

    async def _look(self, user_endpoint: str) -> _Seen:
        row = await self._store.one(_USER_ENDPOINT, which=user_endpoint)
        if row is None:
            return _Seen(State("waiting-for-ep", "Its user endpoint is not known any more"))
        if not endpoints.is_online(row):
            return _Seen(State("waiting-for-ep", await self._why_not_there(row)))
        report = json.loads(row.report or "{}")
        if isinstance(preparing := report.get("preparing"), str) and preparing:
            text = f"Your user endpoint is not ready yet: {printable(preparing, MOST_TOLD)}"
            return _Seen(State("waiting-for-nodes", text))
        most = workers(report)
        oldest = [row.id for row in await self._store.read(_OLDEST, which=user_endpoint, most=most + COUNTED)]
        return _Seen(_waiting(report), frozenset(oldest[:most]), {task: at for at, task in enumerate(oldest[most:])})

    async def _why_not_there(self, row: Row[Any]) -> str:
        manager = await self._store.one(_MANAGER, which=row.manager)
        if manager is None or not endpoints.is_online(manager):
            return "The endpoint is offline; the task waits until it is back"
        last = await self._store.one(_LAST_START, which=row.id)
        if last is not None and last.first_heartbeat_at is None and last.ended_at is None:
            return "Your user endpoint is being started"
        return "Your user endpoint has ended or is not heard of; it is started again when tasks wait for it"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A user endpoint: which of its tasks run, what the others wait for, and how many are before each of the next."""

    waiting: State
    running: frozenset[str] = frozenset()
    places: Mapping[str, int] = field(default_factory=dict)


def workers(report: Mapping[str, Any]) -> int:
    """Returns how many workers a user endpoint has, of its last heartbeat."""
    number = report.get("total_workers")
    return min(number, MOST_WORKERS) if type(number) is int and number > 0 else 0


def _waiting(report: Mapping[str, Any]) -> State:
    """Says what a task waits for that no worker has. Pools, which are always there, tell no `active_managers`."""
    if report.get("active_managers", 1) == 0 or not workers(report):
        return State("waiting-for-nodes", f"Your user endpoint runs and has no workers yet: {_job(report)}")
    return State("waiting-for-launch", "All workers of your user endpoint are busy with earlier tasks")


def _job(report: Mapping[str, Any]) -> str:
    queue, kind = report.get("queue"), report.get("provider_type")
    if kind in (None, "LocalProvider"):
        return "they are being started"
    named = f" in queue {printable(queue, _LONGEST_QUEUE)}" if isinstance(queue, str) and queue else ""
    return f"its batch job{named} has not begun"


def _with_place(state: State, places: Mapping[str, int], task: str) -> State:
    before = places.get(task)
    if before is None and len(places) < COUNTED:  # it is not there, or the task has ended in this moment
        return state
    if before == 0:
        return replace(state, reason=f"{state.reason}; this one is the next")
    many = f"{COUNTED} or more" if before is None else str(before)
    return replace(state, reason=f"{state.reason}; tasks of yours that wait before this one: {many}")
