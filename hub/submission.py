"""From a submission to tasks in the user endpoint's queue and a start command to its manager.

    body -decode-> Submission -plan-> tasks with ids -one change of the store-> rows -publish-> broker

The change of the store comes first: a result must find its task. When the broker fails after it, the rows are taken
back and the caller is told to try again.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from hub import endpoints
from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.clients import Client
from hub.commands import Commands
from hub.endpoints import Manager
from hub.limits import Limits
from hub.shared_lock import SharedLock
from hub.store import tables
from hub.store.store import Store, upsert
from hub.web import ApiError, Forbidden, Invalid, NotFound, TooLarge, TooMany, check_size, field, uuid_field
from wire import messages
from wire.errors import BrokerError, Refused
from wire.messages import Task

TASK_BYTES = 12 * 2**20
"""Of one task as it is published, code and arguments: RabbitMQ takes 16 MiB (from version 4 on), and ends the
connection of whoever sends more."""
SUBMISSION_BYTES = 256 * 2**20
"""Of all tasks of one submission: the code goes with each of them."""
HEADER_BYTES = 64 * 2**10
"""Of resource specification and names of serializers, which travel in a message's headers: those have to fit into one
frame of AMQP (128 KiB), and RabbitMQ ends the connection of whoever sends more."""
OPTIONS_BYTES = 256 * 2**10
"""Of a user endpoint's configuration, and of what the client says about itself: both go with each start command."""
RECOUNT = 5.0
"""Seconds after which the waiting tasks of an identity are counted again; at once when there might be too many."""
AHEAD_BYTES = 16 * 2**20
"""Published before the broker has confirmed what came before."""

_FUNCTION = select(tables.function).where(tables.function.c.id == bindparam("which"))
_USER_ENDPOINTS = select(tables.user_endpoint.c.id).where(tables.user_endpoint.c.identity == bindparam("identity"))
_GROUPS = (
    select(func.count().label("n"))
    .select_from(tables.task_group)
    .where(tables.task_group.c.owner == bindparam("owner"))
)
_TASKS_WAITING = select(func.count().label("n")).where(
    tables.task.c.user_endpoint.in_(bindparam("user_endpoints", expanding=True)), tables.WAITS
)
_HAS_QUEUE = update(tables.task_group).where(tables.task_group.c.id == bindparam("which")).values(has_queue=True)


@dataclass(frozen=True, slots=True)
class Submission:
    """The body of `POST /v3/endpoints/ID/submit`. `calls` are packed arguments by function id.

    `group_may_be_new`: the client has made up the id of the task group itself.
    """

    calls: Mapping[str, list[str]]
    task_group: str | None
    create_queue: bool
    user_opts: Mapping[str, Any]
    user_runtime: Mapping[str, Any]
    resource_specification: Mapping[str, Any] | None
    result_serializers: list[str]
    group_may_be_new: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """One task to be: `function` as the client wrote its id (`asked_as`) and canonical."""

    task: str
    function: str
    asked_as: str
    arguments: str


def decode(body: Mapping[str, Any]) -> Submission:
    """Reads the body of a submission.

    Raises:
        Invalid, TooLarge: the body does not fit; the text names the field.
    """
    calls = field(body, "tasks", dict)
    if not calls or not all(
        isinstance(packed, list) and packed and all(isinstance(arguments, str) for arguments in packed)
        for packed in calls.values()
    ):
        raise Invalid("tasks: expected {function id: [packed arguments, ...]} with at least one call each")
    group = field(body, "task_group_id", str, None)
    serializers = field(body, "result_serializers", list, [])
    if not all(isinstance(name, str) and name.isprintable() for name in serializers):
        raise Invalid("result_serializers: expected a list of names")
    resources = field(body, "resource_specification", dict, None)
    if len(json.dumps([resources, serializers]).encode()) > HEADER_BYTES:
        raise TooLarge(
            f"resource_specification and result_serializers have more than {HEADER_BYTES} bytes, the most that is taken"
        )
    options, runtime = field(body, "user_endpoint_config", dict, {}), field(body, "user_runtime", dict, {})
    check_size(options, "user_endpoint_config", OPTIONS_BYTES)
    check_size(runtime, "user_runtime", OPTIONS_BYTES)
    return Submission(
        calls=calls,
        task_group=None if group is None else uuid_field(group, "task_group_id"),
        create_queue=field(body, "create_queue", bool, False),
        user_opts=options,
        user_runtime=runtime,
        resource_specification=resources,
        result_serializers=serializers,
    )


class Submitter:
    """Carries submissions out. under_way: shared while tasks are on their way to the queue of their user endpoint."""

    def __init__(self, store: Store, broker: Broker, commands: Commands, limits: Limits, under_way: SharedLock) -> None:
        self._store = store
        self._broker = broker
        self._commands = commands
        self._limits = limits
        self._under_way = under_way
        self._waiting: dict[str, tuple[int, float]] = {}
        """How many tasks of an identity wait, with those submitted since they were counted, and when that was."""

    async def submit(self, caller: Client, manager: Manager, submission: Submission) -> dict[str, Any]:
        """Stores and publishes the tasks; the answer is what the client expects.

        Raises:
            ApiError: 403 or 404 for functions and task groups, 413 for what is too large, 429 for what is too much,
                503 when RabbitMQ is not reachable.
        """
        if not self._broker.connected.is_set():
            raise _unavailable()
        calls = [
            _Call(str(uuid.uuid4()), uuid_field(asked_as, "tasks"), asked_as, arguments)
            for asked_as, packed in submission.calls.items()
            for arguments in packed
        ]
        codes = {
            function: await self._code(caller, manager, function) for function in {call.function for call in calls}
        }
        _check_sizes(calls, codes)
        group = await self._group(caller, submission)
        user_endpoint = endpoints.user_endpoint_id(manager.id, caller.identity.id, submission.user_opts)
        await self._check_counts(caller, user_endpoint, len(calls))
        async with self._under_way.share(user_endpoint):
            password = await self._store.write(
                lambda db: self._record(db, caller, manager, submission, calls, group, user_endpoint)
            )
            try:
                await self._publish(caller, submission, calls, codes, group, user_endpoint)
                await self._commands.send(user_endpoint, password)
            except Refused:
                await self._store.write(lambda db: _take_back(db, calls))
                raise TooMany("Too many bytes of your tasks wait for this endpoint; submit more later") from None
            except BrokerError:
                await self._store.write(lambda db: _take_back(db, calls))
                raise _unavailable() from None
        tasks: dict[str, list[str]] = {}
        for call in calls:
            tasks.setdefault(call.asked_as, []).append(call.task)
        return {
            "request_id": str(uuid.uuid4()),
            "task_group_id": group,
            "endpoint_id": manager.id,
            "tasks": tasks,
        }

    async def _check_counts(self, caller: Client, user_endpoint: str, more: int) -> None:
        """Refuses what would be more than one client may have waiting.

        Raises:
            TooMany: tasks without an end, or user endpoints, which each have a queue.
        """
        known = {row.id for row in await self._store.read(_USER_ENDPOINTS, identity=caller.identity.id)}
        if user_endpoint not in known and len(known) >= self._limits.user_endpoints:
            raise TooMany(
                f"You have {len(known)} user endpoints, each with a configuration of its own, the most is"
                f" {self._limits.user_endpoints}; submit with a configuration that you have used before"
            )
        waiting, counted_at = self._waiting.pop(caller.identity.id, (0, 0.0))
        if time.monotonic() > counted_at + RECOUNT or waiting + more > self._limits.tasks_waiting:
            row = await self._store.one(_TASKS_WAITING, user_endpoints=list(known))
            waiting, counted_at = 0 if row is None else row.n, time.monotonic()
        if waiting + more <= self._limits.tasks_waiting:
            self._waiting[caller.identity.id] = waiting + more, counted_at
        else:
            raise TooMany(
                f"{waiting} of your tasks have not ended, the most is {self._limits.tasks_waiting}; submit more later"
            )

    async def _check_groups(self, caller: Client) -> None:
        """Refuses another task group, which has a queue, to who has as many as one may.

        Raises:
            TooMany: the caller has.
        """
        row = await self._store.one(_GROUPS, owner=caller.identity.id)
        if row is not None and row.n >= self._limits.task_groups:
            raise TooMany(
                f"You have {row.n} task groups with tasks of the last days, the most is {self._limits.task_groups}; an"
                " Executor has one: use one for many tasks"
            )

    async def _code(self, caller: Client, manager: Manager, function: str) -> str:
        row = await self._store.one(_FUNCTION, which=function)
        if row is None:
            raise NotFound("function", function)
        if not row.public and not caller.is_one_of(row.owner):
            raise Forbidden(f"Function {function} is not public and not yours")
        if manager.allowed_functions is not None and function not in manager.allowed_functions:
            raise Forbidden(f"Function {function} not permitted on endpoint {manager.id}")
        code: str = row.code
        record = json.loads(row.record)
        return code if record["serialized"] else _packed_source(record["function_name"], code)

    async def _group(self, caller: Client, submission: Submission) -> str:
        if submission.task_group is None:
            await self._check_groups(caller)
            return str(uuid.uuid4())
        known = tables.task_group.c
        row = await self._store.one(select(known.owner).where(known.id == submission.task_group))
        if row is None and submission.group_may_be_new:
            await self._check_groups(caller)
            return submission.task_group
        if row is None or row.owner != caller.identity.id:
            raise NotFound("task group", submission.task_group)
        return submission.task_group

    def _record(
        self,
        db: Connection,
        caller: Client,
        manager: Manager,
        submission: Submission,
        calls: list[_Call],
        group: str,
        user_endpoint: str,
    ) -> str:
        """Changes the store; returns the password of the start command."""
        now = time.time()
        identity = caller.identity.id
        if submission.task_group is None:
            db.execute(
                insert(tables.task_group), {"id": group, "owner": identity, "has_queue": submission.create_queue}
            )
        elif submission.group_may_be_new:
            _take_group(db, group, identity)
        if submission.task_group is not None and submission.create_queue:
            db.execute(_HAS_QUEUE, {"which": group})
        newest = {"client": caller.client_id, "user_runtime": json.dumps(submission.user_runtime)}
        options = json.dumps(submission.user_opts)
        db.execute(
            upsert(db.dialect.name, tables.user_endpoint, *newest),
            {"id": user_endpoint, "manager": manager.id, "identity": identity, "user_opts": options, **newest},
        )
        tasks = [
            {
                "id": call.task,
                "user_endpoint": user_endpoint,
                "task_group": group,
                "function": call.function,
                "submitted_at": now + number * 1e-6,  # in their order, by which it is told which of them run
            }
            for number, call in enumerate(calls)
        ]
        db.execute(insert(tables.task), tasks)
        return self._commands.write_down(db, user_endpoint, now)

    async def _publish(
        self,
        caller: Client,
        submission: Submission,
        calls: list[_Call],
        codes: Mapping[str, str],
        group: str,
        user_endpoint: str,
    ) -> None:
        if submission.create_queue:
            await self._broker.declare_client_queue(topology.client_queue_prefix(caller.identity.id) + group)
        queue = topology.task_queue(user_endpoint)
        await self._broker.declare_queue(queue)
        resources = submission.resource_specification
        shared = {
            "resource_specification": None if resources is None else json.dumps(resources),
            "result_serializers": submission.result_serializers,
        }
        confirms: list[asyncio.Future[None]] = []
        ahead = 0
        for call in calls:
            headers = {"task_uuid": call.task, "function_uuid": call.function, **shared}
            target = topology.target(queue, "application/octet-stream", headers=headers)
            body = messages.pack(Task(call.task, codes[call.function] + call.arguments))
            confirms.append(self._broker.send(target, body))
            ahead += len(body)
            if ahead > AHEAD_BYTES:
                await asyncio.gather(*confirms)
                confirms, ahead = [], 0
        await asyncio.gather(*confirms)


def _check_sizes(calls: list[_Call], codes: Mapping[str, str]) -> None:
    """Refuses what the broker would not take.

    Raises:
        TooLarge: a task, or all together.
    """
    sizes = {function: len(json.dumps(code)) for function, code in codes.items()}
    whole = 0
    for call in calls:
        size = sizes[call.function] + len(json.dumps(call.arguments))
        whole += size
        if size > TASK_BYTES:
            raise TooLarge(
                f"A task has {size} bytes of code and arguments; {TASK_BYTES} are the most that is taken here"
            )
    if whole > SUBMISSION_BYTES:
        raise TooLarge(
            f"The tasks have {whole} bytes of code and arguments; at most {SUBMISSION_BYTES} are taken at once: submit"
            " fewer in one batch"
        )


def _take_group(db: Connection, group: str, identity: str) -> None:
    """Makes a task group whose id the client has made up, unless it is there.

    Raises:
        NotFound: somebody else has made it up.
    """
    new = {"id": group, "owner": identity, "has_queue": False}
    db.execute(upsert(db.dialect.name, tables.task_group, "id"), new)
    if db.execute(select(tables.task_group.c.owner).where(tables.task_group.c.id == group)).scalar_one() != identity:
        raise NotFound("task group", group)


def _take_back(db: Connection, calls: list[_Call]) -> None:
    db.execute(delete(tables.task).where(tables.task.c.id.in_([call.task for call in calls])))


def _packed_source(name: str, source: str) -> str:
    """Packs a function that was registered as text as workers read it (the SDK's PureSourceTextInspect)."""
    packed = f"st\n{name}:{source}"
    return f"{len(packed)}\n{packed}"


def _unavailable() -> ApiError:
    return ApiError(503, "BROKER_UNAVAILABLE", "The service cannot reach its message broker now; try again later")
