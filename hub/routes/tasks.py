"""Tasks by REST: state and result, one by one, in batches, by group; and where to read results by AMQP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from sqlalchemy import Row, bindparam, func, select, update
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.amqp.passwords import Passwords
from hub.clients import Client
from hub.config import BrokerConfig
from hub.store import tables
from hub.store.store import Store
from hub.task_states import TaskStates
from hub.tokens import Tokens
from hub.web import Json, NotFound, field, json_list, json_object, path_id
from wire import messages

BATCH_LIMIT = 5000
"""Tasks in one `batch_status`; more are left out of the answer, which clients take for not ended yet."""
PART_BYTES = 2**20
"""Bytes of results that are read together, unless one alone has more. The answer is written part by part, each once the
client has taken the one before: it costs no more memory than a part, however much is asked for."""
PART_TASKS = 200
"""Tasks that are read together."""

PART_IDS = 5000
"""Ids of tasks that are read together."""

_ID = tables.task.c.id
_TASK = select(tables.task, tables.task_group.c.owner).join(
    tables.task_group, tables.task_group.c.id == tables.task.c.task_group
)
_BY_ID = _TASK.where(bindparam("which") == _ID)


class TaskRoutes:
    """Calls about tasks and their results."""

    def __init__(
        self, store: Store, tokens: Tokens, broker: Broker, passwords: Passwords, config: BrokerConfig
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._broker = broker
        self._passwords = passwords
        self._config = config

    def routes(self) -> list[Route]:
        """Lists the calls."""
        return [
            Route("/v2/tasks/{id}", self.show, methods=["GET"]),
            Route("/v2/batch_status", self.batch, methods=["POST"]),
            Route("/v2/taskgroup/{id}", self.group, methods=["GET"]),
            Route("/v2/get_amqp_result_connection_url", self.result_connection, methods=["GET"]),
        ]

    async def show(self, request: Request) -> Json:
        """Shows the state and, when it has ended, the result of a task."""
        caller = await self._tokens.caller(request)
        task_id = path_id(request, "task")
        row = await self._task(task_id, caller)
        if row is None:
            raise NotFound("task", task_id)
        return Json(await _shown(row, TaskStates(self._store)))

    async def batch(self, request: Request) -> StreamingResponse:
        """Shows the same of many tasks; those that are not the caller's are left out."""
        caller = await self._tokens.caller(request)
        ids = [str(text).lower() for text in field(await json_object(request), "task_ids", list)[:BATCH_LIMIT]]
        wanted = _ID.in_(ids), tables.task_group.c.owner == caller.identity.id
        size = func.coalesce(func.length(tables.task.c.result), 0).label("size")
        sizes = {row.id: row.size for row in await self._store.read(_TASK.with_only_columns(_ID, size).where(*wanted))}
        parts = _parts([task_id for task_id in dict.fromkeys(ids) if task_id in sizes], sizes)
        return StreamingResponse(self._written(parts), media_type="application/json")

    async def _written(self, parts: list[list[str]]) -> AsyncIterator[bytes]:
        """Makes the answer of `batch`, a piece for each task."""
        states = TaskStates(self._store)
        yield b'{"response":"batch","results":{'
        comma = b""
        for part in parts:
            rows = {row.id: row for row in await self._store.read(_TASK.where(_ID.in_(part)))}
            for task_id in part:
                if task_id in rows:  # else it has been forgotten in this moment
                    shown = Json({task_id: await _shown(rows.pop(task_id), states)}).body
                    yield comma + bytes(shown)[1:-1]
                    comma = b","
        yield b"}}"

    async def group(self, request: Request) -> StreamingResponse:
        """Lists the tasks of a group. Who asks wants to wait for them: results that are to come go to its queue."""
        caller = await self._tokens.caller(request)
        group = path_id(request, "task group")
        known = tables.task_group.c
        row = await self._store.one(select(known.owner).where(known.id == group))
        if row is None or row.owner != caller.identity.id:
            raise NotFound("task group", group)
        await self._broker.declare_client_queue(topology.client_queue_prefix(caller.identity.id) + group)
        await self._store.execute(
            update(tables.task_group).where(known.id == group, ~known.has_queue).values(has_queue=True)
        )
        task = tables.task.c
        its = select(task.id, task.submitted_at).where(task.task_group == group)
        ids = self._store.parts(its, task.submitted_at, task.id, most=PART_IDS)
        before = f'{{"taskgroup_id":"{group}","tasks":['
        return json_list(([{"id": row.id} for row in rows] async for rows in ids), before.encode(), b"]}")

    async def result_connection(self, request: Request) -> Json:
        """Gives an AMQP account that reads the result queues of the caller, and of nobody else."""
        caller = await self._tokens.caller(request)
        account = topology.client_account(caller.identity.id)
        password = await self._store.write(lambda db: self._passwords.give(db, account))
        return Json(
            {
                "queue_prefix": topology.client_queue_prefix(caller.identity.id),
                "connection_url": self._config.url_for(account, password),
            }
        )

    async def _task(self, task_id: str, caller: Client) -> Row[Any] | None:
        row = await self._store.one(_BY_ID, which=task_id)
        return row if row is not None and row.owner == caller.identity.id else None


def _parts(ids: list[str], sizes: Mapping[str, int]) -> list[list[str]]:
    """Parts `ids` into such as are read together."""
    parts: list[list[str]] = []
    size = 0
    for task_id in ids:
        size += sizes[task_id]
        if not parts or size > PART_BYTES or len(parts[-1]) >= PART_TASKS:
            parts.append([])
            size = sizes[task_id]
        parts[-1].append(task_id)
    return parts


async def _shown(row: Row[Any], states: TaskStates) -> dict[str, Any]:
    """Shows a task as clients read it: it has ended exactly when there is a `completion_t`.

    Of a task that has not ended, clients show `status` and `details`.
    """
    shown = {"task_id": row.id, "task_group_id": row.task_group}
    if row.ended_at is None:
        state = await states.of(row.id, row.user_endpoint)
        details = {"reason": state.reason, "endpoint_id": row.user_endpoint}
        return {**shown, "status": state.status, "reason": state.reason, "details": details}
    result = messages.unpack(row.result)
    assert isinstance(result, messages.Result)
    shown["completion_t"] = str(row.ended_at)
    if isinstance(result.details, dict):
        times = {step.state: step.timestamp / 1e9 for step in result.task_statuses if 0 <= step.timestamp < 2**63}
        shown["details"] = {**result.details, "task_transitions": times}
    if result.error_details is None:
        return {**shown, "status": "success", "result": result.data}
    return {**shown, "status": "failed", "exception": result.data, "reason": result.error_details.user_message}
