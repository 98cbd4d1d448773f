"""From rows of the store to what pages show. Each list is read a part at a time, and of large values a bounded part."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, case, func, null, select

from hub import endpoints
from hub.callers import Callers
from hub.clients import Client
from hub.endpoints import Manager
from hub.page import waiting
from hub.page.schema import bounded_json
from hub.page.views import EndpointView, OwnedUserEndpoint, Page, Start, TaskView, UserEndpointView
from hub.store import tables
from hub.store.store import Store
from hub.task_states import TaskStates
from wire import messages

SIZE = 25
"""Entries of a list on one page."""
MOST_STARTS = 40
"""Of one user endpoint: the newest."""
_NAMES = 2000
"""Characters of a record in which its names are looked for; they come first in it."""
_OPTIONS = 4000
_REPORT = 64 * 2**10
_RESULT = 256 * 2**10
"""Bytes of a result that is looked into; errors have fewer."""


class Queries:
    """Asks the store for one client, who gets to see what REST shows to it, and nothing else."""

    def __init__(self, store: Store, callers: Callers) -> None:
        self._store = store
        self._callers = callers

    async def endpoints(self, client: Client, first: int) -> tuple[list[EndpointView], Page]:
        """Lists those that REST lists: the client's own, and the public ones."""
        known = tables.endpoint.c
        is_own = case((endpoints.run_by(client), 1), else_=0).label("is_own")
        title = func.lower(func.coalesce(func.nullif(known.display_name, ""), known.name))
        rows, page = await self._rows(
            select(
                *(known[name] for name in ("id", "name", "display_name", "public", "multi_user")),
                known.heartbeat_at,
                known.heartbeat_period,
                is_own,
            )
            .where(endpoints.listed_for(client))
            .order_by(is_own.desc(), endpoints.online_at(time.time()).desc(), title, known.id),
            first,
        )
        return [_listed_view(row) for row in rows], page

    async def endpoint(self, client: Client, endpoint_id: str) -> tuple[EndpointView, Mapping[str, Any]]:
        """Reads one that the client may use, and what it says about itself.

        Raises:
            NotFound, Forbidden: there is none, or it is not open to the client.
        """
        manager = await endpoints.open_manager(self._store, endpoint_id, client)
        metadata = await endpoints.read_metadata(self._store, endpoint_id)
        return _endpoint_view(manager, client, metadata), metadata

    async def tasks(self, client: Client, first: int) -> tuple[list[TaskView], Page]:
        """Lists the client's, newest first."""
        task, group = tables.task.c, tables.task_group.c
        # The ids alone: a client may have a million tasks, and the database carries along what it sorts.
        newest, page = await self._rows(
            select(task.id)
            .join(tables.task_group, group.id == task.task_group)
            .where(group.owner == client.identity.id)
            .order_by(task.submitted_at.desc()),
            first,
        )
        order = [row.id for row in newest]
        found = await self._store.read(
            select(
                task.id,
                task.function,
                task.user_endpoint,
                task.submitted_at,
                task.ended_at,
                case((func.length(task.result) <= _RESULT, task.result), else_=null()).label("result"),
            ).where(task.id.in_(order))
        )
        rows = sorted(found, key=lambda row: order.index(row.id))
        known = {u.id: u for u in await self._user_endpoints_of([row.user_endpoint for row in rows])}
        names = await self._function_names({row.function for row in rows})
        now = time.time()
        states = TaskStates(self._store)
        shown = []
        for row in rows:
            view = _task_view(row, known.get(row.user_endpoint), names.get(row.function, ""))
            waits = row.ended_at is None
            shown.append(await self._waiting(view, known.get(row.user_endpoint), states, now) if waits else view)
        return shown, page

    async def _waiting(
        self, view: TaskView, user_endpoint: UserEndpointView | None, states: TaskStates, now: float
    ) -> TaskView:
        """Says of a task that has not ended what it waits for."""
        if user_endpoint is not None and not user_endpoint.online:
            return replace(view, why=waiting.why(user_endpoint, now))
        state = await states.of(view.id, "" if user_endpoint is None else user_endpoint.id)
        return replace(view, state=state.status, why=f"{state.reason}.")

    async def user_endpoints(self, client: Client, first: int) -> tuple[list[UserEndpointView], Page]:
        """Lists the client's, with the one that was commanded last first."""
        known = tables.user_endpoint.c
        rows, page = await self._rows(
            select(known.id)
            .where(known.identity.in_([identity.id for identity in client.identities]))
            .order_by(known.commanded_at.desc(), known.id),
            first,
        )
        order = [row.id for row in rows]
        views = await self._user_endpoints_of(order)
        return sorted(views, key=lambda view: order.index(view.id)), page

    async def starts(self, manager: Manager, first: int) -> tuple[list[OwnedUserEndpoint], Page]:
        """Lists the user endpoints of a manager with their newest starts, newest first."""
        known = tables.user_endpoint.c
        rows, page = await self._rows(
            select(
                known.id,
                known.identity,
                known.heartbeat_at,
                known.heartbeat_period,
                func.substr(known.user_opts, 1, _OPTIONS).label("options"),
            )
            .where(known.manager == manager.id)
            .order_by(known.commanded_at.desc(), known.id),
            first,
        )
        known_as = await self._callers.identities({row.identity for row in rows}, ())
        usernames = {identity.id: identity.username for identity in known_as}
        return [
            OwnedUserEndpoint(
                row.id,
                usernames.get(row.identity, row.identity),
                _options(row.options),
                endpoints.is_online(row),
                await self._starts_of(row.id),
            )
            for row in rows
        ], page

    async def _rows(self, query: Any, first: int) -> tuple[Sequence[Row[Any]], Page]:
        rows = await self._store.read(query.offset(first).limit(SIZE + 1))
        return rows[:SIZE], _page(first, len(rows) > SIZE)

    async def _user_endpoints_of(self, ids: Iterable[str]) -> list[UserEndpointView]:
        known, manager = tables.user_endpoint.c, tables.endpoint.c
        wanted = set(ids)
        rows = await self._store.read(
            select(
                known.id,
                known.manager,
                known.commanded_at,
                known.heartbeat_at,
                known.heartbeat_period,
                known.stop_asked_at,
                func.substr(known.user_opts, 1, _OPTIONS).label("options"),
                case((func.length(known.report) <= _REPORT, known.report), else_=null()).label("report"),
                manager.name.label("manager_name"),
                manager.display_name.label("manager_display_name"),
                manager.heartbeat_at.label("manager_heartbeat_at"),
                manager.heartbeat_period.label("manager_heartbeat_period"),
            )
            .outerjoin(tables.endpoint, manager.id == known.manager)
            .where(known.id.in_(wanted))
        )
        task = tables.task.c
        counted = await self._store.read(
            select(task.user_endpoint, func.count().label("waiting"))
            .where(task.user_endpoint.in_(wanted), tables.WAITS)
            .group_by(task.user_endpoint)
        )
        start = tables.start.c
        newest = select(func.max(start.id)).where(start.user_endpoint.in_(wanted)).group_by(start.user_endpoint)
        begun = await self._store.read(select(tables.start).where(start.id.in_(newest)))
        tasks_waiting = {row.user_endpoint: row.waiting for row in counted}
        starts = {row.user_endpoint: _start(row) for row in begun}
        return [_user_endpoint_view(row, tasks_waiting.get(row.id, 0), starts.get(row.id)) for row in rows]

    async def _starts_of(self, user_endpoint: str) -> tuple[Start, ...]:
        start = tables.start
        rows = await self._store.read(
            select(start).where(start.c.user_endpoint == user_endpoint).order_by(start.c.id.desc()).limit(MOST_STARTS)
        )
        return tuple(map(_start, rows))

    async def _function_names(self, ids: Iterable[str]) -> dict[str, str]:
        function = tables.function.c
        rows = await self._store.read(
            select(function.id, func.substr(function.record, 1, _NAMES).label("names")).where(function.id.in_(set(ids)))
        )
        return {row.id: str(leading(row.names).get("function_name") or "") for row in rows}


def leading(text: str) -> dict[str, Any]:
    """Reads the members at the beginning of a JSON object, as `json.dumps` writes it, of which the rest is cut off."""
    decoder = json.JSONDecoder()
    found: dict[str, Any] = {}
    if not text.startswith("{"):
        return found
    at = 1
    try:
        while at < len(text) and text[at] != "}":
            key, at = decoder.raw_decode(text, at)
            found[key], at = decoder.raw_decode(text, at + len(": "))
            at += len(", ")
    except (ValueError, RecursionError):  # the cut
        pass
    return found


def _page(first: int, more: bool) -> Page:
    return Page(first, max(0, first - SIZE) if first else None, first + SIZE if more else None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _endpoint_view(manager: Manager, client: Client, metadata: Mapping[str, Any]) -> EndpointView:
    return EndpointView(
        id=manager.id,
        name=manager.name or manager.id,
        display_name=manager.display_name or "",
        hostname=_text(metadata.get("hostname")),
        online=manager.online,
        seen_at=manager.seen_at,
        is_own=manager.is_run_by(client),
        public=manager.public,
        multi_user=manager.multi_user,
    )


def _listed_view(row: Row[Any]) -> EndpointView:
    return EndpointView(
        id=row.id,
        name=row.name or row.id,
        display_name=row.display_name or "",
        hostname="",
        online=endpoints.is_online(row),
        seen_at=row.heartbeat_at,
        is_own=bool(row.is_own),
        public=row.public,
        multi_user=row.multi_user,
    )


def _user_endpoint_view(row: Row[Any], tasks_waiting: int, start: Start | None) -> UserEndpointView:
    report = json.loads(row.report or "{}")
    return UserEndpointView(
        id=row.id,
        endpoint_id=row.manager,
        endpoint="" if row.manager_name is None else row.manager_display_name or row.manager_name or "?",
        endpoint_online=endpoints.is_alive(row.manager_heartbeat_at, row.manager_heartbeat_period),
        endpoint_seen_at=row.manager_heartbeat_at,
        options=_options(row.options),
        online=endpoints.is_online(row),
        commanded_at=row.commanded_at,
        seen_at=row.heartbeat_at,
        report=report if isinstance(report, dict) else {},
        waiting=tasks_waiting,
        last_start=start,
        stop_asked_at=row.stop_asked_at if (row.stop_asked_at or 0.0) > row.commanded_at else None,
    )


def _options(text: str) -> str:
    """Shows options, of which no more than _OPTIONS characters were read."""
    try:
        return bounded_json(json.loads(text), _OPTIONS)
    except (ValueError, RecursionError):
        return f"{text} ..."


def _start(row: Row[Any]) -> Start:
    return Start(row.commanded_at, row.commands, row.first_heartbeat_at, row.first_result_at, row.ended_at, row.error)


def _task_view(row: Row[Any], user_endpoint: UserEndpointView | None, function: str) -> TaskView:
    view = TaskView(
        id=row.id,
        function=function,
        endpoint_id="" if user_endpoint is None else user_endpoint.endpoint_id,
        endpoint="" if user_endpoint is None else user_endpoint.endpoint,
        submitted_at=row.submitted_at,
        ended_at=row.ended_at,
        state="waiting-for-ep",
    )
    if row.ended_at is None:
        return view
    if row.result is None:
        return replace(view, state="ended")
    result = messages.unpack(row.result)
    if not isinstance(result, messages.Result) or result.error_details is None:
        return replace(view, state="success")
    return replace(view, state="failed", error=str(result.data or result.error_details.user_message))
