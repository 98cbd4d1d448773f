"""`python -m benchmarks.listing`: the hub's list of endpoints, beside one that reads whole records.

1,000 endpoints, each with so much metadata, ten of them the caller's; the lists are asked for in turns, in one run. Two
figures of each: how long the answer takes, and the longest time in which the event loop serves nobody else. Medians.
Nothing is asserted of the figures: machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import select

from hub import endpoints
from hub.clients import Client, Identity
from hub.store import tables
from hub.store.store import Store, sqlite_url
from hub.web import Json, json_list

OWN = 10
Ask = Callable[[], Awaitable[int]]
"""Asks for a list; returns the bytes of the answer."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench-listing")
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--metadata", type=int, default=100, help="KiB of each")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mep-bench-") as folder:
        asyncio.run(measure(Path(folder) / "hub.db", options))


async def measure(path: Path, options: argparse.Namespace) -> None:
    """Fills a database, asks and prints."""
    caller = _client()
    with closing(Store(sqlite_url(path))) as store:
        for number in range(options.endpoints):
            owner = caller.identity.id if number < OWN else str(uuid.uuid4())
            await _register(store, owner, "x" * (options.metadata << 10))
        print(f"{options.endpoints} endpoints with {options.metadata} KiB of metadata each, {options.times} times")
        for role in ("owner", "any"):
            which = endpoints.listed_for(caller) if role == "any" else endpoints.run_by(caller)
            asked: dict[str, Ask] = {
                "whole records": lambda role=role: _whole(store, caller, role),  # type: ignore[misc]
                "columns, in parts": lambda which=which: _in_parts(store, which),  # type: ignore[misc]
            }
            figures: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
            for _ in range(options.times):
                for name, ask in asked.items():
                    figures[name].append(await _timed(ask))
            _print(role, figures)


def _print(role: str, figures: dict[str, list[tuple[float, float]]]) -> None:
    print(f"role={role}:")
    medians = {}
    for name, taken in figures.items():
        answer, stands = (1000 * statistics.median(each) for each in zip(*taken, strict=True))
        medians[name] = answer, stands
        print(f"  {name:<20}{answer:9.1f} ms an answer, {stands:9.1f} ms in which nobody else is served")
    whole, columns = medians.values()
    print(f"  ratio               {whole[0] / columns[0]:9.1f}               {whole[1] / columns[1]:9.1f}")


async def _timed(ask: Ask) -> tuple[float, float]:
    longest, stop = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        while not stop.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - before)

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    begin = time.perf_counter()
    assert await ask() > 0
    taken = time.perf_counter() - begin
    stop.set()
    await watching
    return taken, longest


async def _whole(store: Store, caller: Client, role: str) -> int:
    """As the hub did it: each record is read and parsed, whoever asks."""
    endpoint, record = tables.endpoint, tables.endpoint_record
    policy = endpoint.c.authentication_policy.label("policy")
    query = select(endpoint, policy, record.c.record).join(record, record.c.id == endpoint.c.id)
    rows = await store.read(query.order_by(endpoint.c.registered_at))
    found = []
    for row in rows:
        said = json.loads(row.record)
        is_own = caller.is_one_of(row.owner) or any(map(caller.is_one_of, said.get("admins") or ()))
        if is_own or (role == "any" and row.public):
            found.append(endpoints.shown(row))
    return len(Json(found).body)


async def _in_parts(store: Store, which: object) -> int:
    size = 0
    async for piece in json_list(endpoints.listed(store, which)).body_iterator:  # type: ignore[arg-type]
        size += len(piece)
        await asyncio.sleep(0)  # the client takes it
    return size


async def _register(store: Store, owner: str, metadata: str) -> None:
    said = {"display_name": None, "multi_user": True, "public": True, "admins": None, "allowed_functions": None}
    record = {"endpoint_name": "e", **said, "metadata": {"user_config_template": metadata}}
    await store.write(lambda db: endpoints.keep(db, str(uuid.uuid4()), owner, record))


def _client() -> Client:
    identity = Identity(str(uuid.uuid4()), "a@b", "", "", "", "", "")
    return Client(str(uuid.uuid4()), None, (identity,))


if __name__ == "__main__":
    main()
