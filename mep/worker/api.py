"""The answers of the API: what may be asked of a manager, by which path, and what comes back. `openapi.json` has each.

`api_server` takes the connections and calls `answer`. Facts come from the monitor when somebody asks; what the answer
adds to them is worked out on one thread, once for all who ask meanwhile: nobody who asks holds up the broker.
"""

from __future__ import annotations

import asyncio
import functools
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mep import __version__
from mep.worker import figures, metrics, resources
from mep.worker.durations import Durations
from mep.worker.events import MOST, Events, found

DESCRIPTION = Path(__file__).with_name("openapi.json")
METRICS = "/metrics"
"""Where Prometheus looks by itself."""
_MOST_PARAMETERS = 8
_JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """What is answered, of a status and a type."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    kind: str = _JSON


@dataclass(frozen=True)
class _Route:
    """body: makes what is answered. It takes these parameters, and raises ValueError for a value that is none."""

    body: Callable[[Mapping[str, str]], Awaitable[bytes]]
    parameters: frozenset[str] = frozenset()
    kind: str = _JSON


class Api:
    """ask: asks the monitor for the facts. events: those that it has told of. durations: how long starts take."""

    def __init__(self, ask: Callable[[], Awaitable[bytes]], events: Events, durations: Durations) -> None:
        self._ask = ask
        self._events = events
        self._durations = durations
        self._thread = ThreadPoolExecutor(1, "api")
        self._made: tuple[bytes, asyncio.Future[_Seen]] | None = None
        self._routes = {
            "/v1/status": _Route(self._status),
            "/v1/user-endpoints": _Route(self._user_endpoints),
            "/v1/held-back": _Route(self._held_back),
            "/v1/events": _Route(self._newest, frozenset({"limit", "event", "account", "request", "endpoint"})),
            "/v1/openapi.json": _Route(self._description),
            METRICS: _Route(self._metrics, kind=metrics.KIND),
        }

    @property
    def paths(self) -> Mapping[str, frozenset[str]]:
        """What may be asked for, and with which parameters."""
        return {path: route.parameters for path, route in self._routes.items()}

    async def answer(self, target: str) -> Answer:
        """The answer to a GET. Never raises but when it is cancelled."""
        try:
            parts = urlsplit(target)
            given = parse_qsl(parts.query, strict_parsing=True, max_num_fields=_MOST_PARAMETERS) if parts.query else []
        except ValueError:
            return refusal(HTTPStatus.BAD_REQUEST, "the address makes no sense")
        if parts.path not in self._routes:
            return refusal(HTTPStatus.NOT_FOUND, f"there is no such path; there are {', '.join(self._routes)}")
        route, parameters = self._routes[parts.path], dict(given)
        if len(parameters) < len(given) or not route.parameters.issuperset(parameters):
            said = f"known parameters: {', '.join(sorted(route.parameters)) or 'none'}; each once"
            return refusal(HTTPStatus.BAD_REQUEST, said)
        try:
            return Answer(await route.body(parameters), kind=route.kind)
        except ValueError as e:
            return refusal(HTTPStatus.BAD_REQUEST, str(e))

    async def _status(self, _: Mapping[str, str]) -> bytes:
        seen, events = await self._seen(), self._events
        counted = {
            "since": round(events.since),
            **events.rates(),
            "totals": dict(events.totals),
            "refusals": dict(events.refusals),
        }
        return json.dumps({**seen.manager, "events": counted}).encode()

    async def _user_endpoints(self, _: Mapping[str, str]) -> bytes:
        return (await self._seen()).user_endpoints

    async def _held_back(self, _: Mapping[str, str]) -> bytes:
        return (await self._seen()).held_back

    async def _newest(self, parameters: Mapping[str, str]) -> bytes:
        wanted = dict(parameters)
        limit = wanted.pop("limit", "100")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= MOST:
            raise ValueError(f"limit: a number from 1 to {MOST}")
        finding = functools.partial(found, self._events.lines(), int(limit), **wanted)
        lines = await asyncio.get_running_loop().run_in_executor(self._thread, finding)
        return b'{"since": %d, "events": [%s]}' % (self._events.since, b", ".join(lines))

    async def _description(self, _: Mapping[str, str]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._thread, DESCRIPTION.read_bytes)

    async def _metrics(self, _: Mapping[str, str]) -> bytes:
        seen, decided = await self._seen(), metrics.of_events(self._events, self._durations)
        making = functools.partial(metrics.of_manager, seen.manager, seen.user_endpoints, seen.held_back)
        return (decided + await asyncio.get_running_loop().run_in_executor(self._thread, making)).encode()

    async def _seen(self) -> _Seen:
        """The facts as they are now; worked out once for all who get the same."""
        facts = await self._ask()
        if self._made is None or self._made[0] is not facts:
            self._made = facts, asyncio.get_running_loop().run_in_executor(self._thread, _made_of, facts)
        return await asyncio.shield(self._made[1])


def refusal(status: HTTPStatus, text: str) -> Answer:
    """What is answered to who asks wrongly."""
    return Answer(json.dumps({"error": text}).encode(), status)


@dataclass(frozen=True)
class _Seen:
    """The monitor's facts, and answers made of them."""

    manager: Mapping[str, Any]
    user_endpoints: bytes
    held_back: bytes


def _made_of(facts: bytes) -> _Seen:
    """On the thread."""
    said = json.loads(facts)
    names = {each["uid"]: each["account"] for each in said["user_endpoints"]}
    manager = {
        **said["manager"],
        "version": __version__,
        "host": socket.gethostname(),
        "user_endpoints": len(said["user_endpoints"]) + said["left_out"],
    }
    shown = {"user_endpoints": list(map(_shown, said["user_endpoints"])), "left_out": said["left_out"]}
    held = [*_ordered(manager.get("orders") or {}), *said["held_back"]]
    nobody = {"target": None, "uid": None, "since": None}
    held = [{**nobody, **each, "account": names.get(each.get("uid"))} for each in held]
    manager["held_back"] = len(held)
    return _Seen(manager, json.dumps(shown).encode(), json.dumps({"held_back": held}).encode())


def _ordered(orders: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Who gets no user endpoint because somebody has ordered that: everybody (a drain), or those who are banned."""
    drains = [orders["drain"]] if orders.get("drain") else []
    for kind, listed in (("drain", drains), ("ban", orders.get("bans", []))):
        for each in listed:
            known = {name: each.get(name) for name in ("target", "since", "reason")}
            yield {**known, "kind": kind, "until": each.get("until") or None}


def _shown(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A user endpoint as it is shown: with what it says of itself, and what it uses."""
    known = {name: value for name, value in endpoint.items() if name not in ("figures", "cgroup")}
    memory, cpu = resources.used(endpoint["cgroup"], endpoint["pid"])
    return {**known, "memory_bytes": memory, "cpu_seconds": cpu, **figures.read(endpoint["figures"])}
