"""What unit tests of the hub share: clients, a broker that only remembers, and REST calls without a network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from sqlalchemy import Row, insert, text
from starlette.applications import Starlette

from hub import endpoints
from hub.amqp import topology
from hub.callers import Callers
from hub.clients import Client, Identity
from hub.config import BrokerConfig
from hub.limits import Limits, Turns
from hub.store import tables
from hub.store.store import Store
from hub.tokens import Tokens
from hub.web import ApiError, error_response
from wire.consumer import Delivery
from wire.errors import ConnectionLost, NotDelivered, Refused
from wire.queues import Target

T = TypeVar("T")

CONFIG = BrokerConfig("amqp://hub:s3cret@127.0.0.1:5672/%2F", "amqps", "broker.example.org", 5671, "/")
COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end in a loop of its own."""
    return asyncio.run(work)


def new_id() -> str:
    return str(uuid.uuid4())


def identity(name: str, **more: Any) -> Identity:
    fields = {"email": f"{name}@example.org", "name": name, "identity_provider": new_id()}
    display = {"identity_provider_display_name": "Example", "organization": "Example"}
    return Identity(**{"id": new_id(), "username": f"{name}@example.org", **fields, **display, **more})


def client(name: str, *linked: Identity) -> Client:
    """A client whose secret is `secret of NAME`."""
    return Client(new_id(), hashlib.sha256(f"secret of {name}".encode()).digest(), (identity(name), *linked))


ALICE = client("alice", identity("al", status="private"))
BOB = client("bob")
ADMIN = client("admin")
CLIENTS: Mapping[str, Client] = {c.client_id: c for c in (ALICE, BOB, ADMIN)}


class StubBroker:
    """Stands for `hub.amqp.broker.Broker`: remembers what it is told, and fails when it is to."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.sent: list[tuple[Target, bytes]] = []
        self.calls: list[tuple[str, str]] = []
        self.waiting: dict[str, tuple[int, int]] = {}
        self.unroutable: set[str] = set()
        self.full: set[str] = set()
        self.read_by_others: set[str] = set()

    def lose(self) -> None:
        """The connection is gone from now on."""
        self.connected.clear()

    def send(self, target: Target, body: bytes) -> asyncio.Future[None]:
        self._check()
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if target.routing_key in self.unroutable:
            confirmed.set_exception(NotDelivered("no queue"))
        elif target.routing_key in self.full:
            confirmed.set_exception(Refused("full"))
        else:
            self.sent.append((target, body))
            confirmed.set_result(None)
        return confirmed

    async def declare_queue(self, queue: str) -> tuple[int, int]:
        self._call("declare", queue)
        return self.waiting.get(queue, (0, 0))

    async def declare_client_queue(self, queue: str) -> None:
        self._call("declare for a client", queue)

    async def delete_queue(self, queue: str) -> None:
        self._call("delete", queue)

    async def purge_queue(self, queue: str) -> None:
        self._call("purge", queue)

    @contextlib.asynccontextmanager
    async def sole_reader(self, queue: str) -> AsyncIterator[bool]:
        alone = queue not in self.read_by_others
        self._call("read alone" if alone else "has another reader", queue)
        yield alone
        if alone:
            self._call("purge", queue)

    def sent_to(self, queue: str) -> list[bytes]:
        return [body for target, body in self.sent if target.routing_key == queue]

    def _call(self, what: str, queue: str) -> None:
        self._check()
        self.calls.append((what, queue))

    def _check(self) -> None:
        if not self.connected.is_set():
            raise ConnectionLost("not connected to RabbitMQ")


def rows(store: Store, sql: str, **values: Any) -> Sequence[Row[Any]]:
    """What is in the database, also outside of a loop."""
    return store._fetch(text(sql), values)


def one(store: Store, sql: str, **values: Any) -> Row[Any]:
    """The first of them."""
    return rows(store, sql, **values)[0]


async def change(store: Store, sql: str, **values: Any) -> None:
    """Changes the database by a statement in SQL."""
    await store.write(lambda db: db.execute(text(sql), values))


async def add_manager(store: Store, owner: Client = ADMIN, **changes: Any) -> str:
    """A row of `endpoint`; its id."""
    record = {"endpoint_name": "e", "multi_user": True, "public": True, "metadata": {}, **changes}
    manager = new_id()
    await store.write(lambda db: endpoints.keep(db, manager, owner.identity.id, record))
    return manager


async def add_function(
    store: Store, function: str, owner: Client = ALICE, *, public: bool = False, serialized: bool = True
) -> None:
    """A row of `function`, `f`, whose code is `CODE `."""
    record = json.dumps({"function_name": "f", "serialized": serialized})
    row = {"id": function, "owner": owner.identity.id, "public": public, "code": "CODE ", "record": record}
    await store.execute(insert(tables.function).values(row))


async def add_start(store: Store, user_endpoint: str, commanded_at: float = 0, ended_at: float | None = None) -> None:
    """A row of `start`."""
    times = {"commanded_at": commanded_at, "ended_at": ended_at}
    await store.execute(insert(tables.start).values(user_endpoint=user_endpoint, **times))


async def add_user_endpoint(store: Store, manager: str, user: Client = ALICE) -> str:
    """A row of `user_endpoint`; its id."""
    user_endpoint = new_id()
    whose = {"manager": manager, "client": user.client_id, "identity": user.identity.id}
    said = {"user_opts": '{"a": 1}', "user_runtime": "{}"}
    await store.execute(insert(tables.user_endpoint).values(id=user_endpoint, **whose, **said))
    return user_endpoint


async def add_task(
    store: Store, user_endpoint: str, user: Client = ALICE, *, has_queue: bool = True
) -> tuple[str, str]:
    """A task that waits, in a group of its own; the ids of both."""
    task, group = new_id(), new_id()
    await store.execute(insert(tables.task_group).values(id=group, owner=user.identity.id, has_queue=has_queue))
    where = {"user_endpoint": user_endpoint, "task_group": group}
    await store.execute(insert(tables.task).values(id=task, **where, function="", submitted_at=0))
    return task, group


def from_endpoint(endpoint: str, exchange: str, body: bytes) -> Delivery:
    """What `endpoint` published."""
    return Delivery(1, body, routing_key=topology.routing_key(endpoint, exchange))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    asked_for: int = 0
    """How often the application asked for a part of the request's body."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Rest:
    """REST calls to some routes, as one client or as nobody."""

    def __init__(self, routes: list[Any], store: Store | None = None) -> None:
        self._app: Callable[..., Awaitable[None]] = Starlette(
            routes=routes, exception_handlers={ApiError: error_response}
        )
        self._tokens = None if store is None else Tokens(store, Callers(store, CLIENTS), Turns(Limits()))

    async def __call__(
        self,
        method: str,
        path: str,
        caller: Client | None = None,
        *,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        scope: str = COMPUTE_SCOPE,
    ) -> Answer:
        """`body` is sent as JSON, `form` as a form, `raw` as it is; `caller` gets a token for `scope` first."""
        sent = dict(headers or {})
        if caller is not None:
            assert self._tokens is not None
            (grant,) = await self._tokens.issue(caller, [scope])
            sent["authorization"] = f"Bearer {grant.access_token}"
        if raw is None:
            raw = urlencode(form).encode() if form is not None else json.dumps(body).encode()
        return await ask(self._app, method, path, raw, sent)


def basic(client_id: str, secret: str) -> dict[str, str]:
    """The header of HTTP Basic."""
    return {"authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


async def ask(
    app: Callable[..., Awaitable[None]],
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    endless: bool = False,
) -> Answer:
    """One request to an ASGI application; with `endless` the body comes again and again."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "server": ("127.0.0.1", 5000),
        "root_path": "",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    said: list[Any] = []

    asked_for = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked_for
        asked_for += 1
        if asked_for > 1 and not endless:
            await asyncio.Event().wait()  # it has been heard, and stays
        return {"type": "http.request", "body": body, "more_body": endless}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await app(scope, receive, send)
    start, *rest = said
    told = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], told, b"".join(part.get("body", b"") for part in rest), asked_for)
