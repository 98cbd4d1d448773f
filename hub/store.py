"""SQLite: reads at once on the event loop, writes in group commits on a thread of their own.

`read` sees every change whose `write` has returned. Writes that arrive while a commit is under way share the next
one, so that thousands of small writes a second cost tens of disk syncs. A write that fails is undone alone.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]

SCHEMA = """
CREATE TABLE IF NOT EXISTS token(
    hash BLOB PRIMARY KEY, client TEXT NOT NULL, resource_server TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS password(
    account TEXT NOT NULL, hash BLOB NOT NULL, expires REAL NOT NULL, used INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(account, hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS function(
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, public INTEGER NOT NULL, code TEXT NOT NULL, record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS endpoint(
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, multi_user INTEGER NOT NULL, public INTEGER NOT NULL,
    record TEXT NOT NULL, locked_until REAL NOT NULL DEFAULT 0,
    heartbeat_at REAL, heartbeat_period REAL, report TEXT
);
CREATE TABLE IF NOT EXISTS user_endpoint(
    id TEXT PRIMARY KEY, manager TEXT NOT NULL, client TEXT NOT NULL, identity TEXT NOT NULL,
    user_opts TEXT NOT NULL, user_runtime TEXT NOT NULL, commanded_at REAL NOT NULL DEFAULT 0,
    heartbeat_at REAL, heartbeat_period REAL, report TEXT
);
CREATE INDEX IF NOT EXISTS user_endpoint_by_manager ON user_endpoint(manager);
CREATE INDEX IF NOT EXISTS user_endpoint_by_identity ON user_endpoint(identity);
CREATE TABLE IF NOT EXISTS start(
    user_endpoint TEXT NOT NULL, commanded_at REAL NOT NULL, commands INTEGER NOT NULL DEFAULT 1,
    first_heartbeat_at REAL, first_result_at REAL, ended_at REAL, error TEXT
);
CREATE INDEX IF NOT EXISTS start_by_user_endpoint ON start(user_endpoint);
CREATE TABLE IF NOT EXISTS task_group(
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, has_queue INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS task(
    id TEXT PRIMARY KEY, user_endpoint TEXT NOT NULL, task_group TEXT NOT NULL, function TEXT NOT NULL,
    submitted_at REAL NOT NULL, ended_at REAL, result BLOB, forwarded INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS task_waiting ON task(user_endpoint) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS task_unforwarded ON task(id) WHERE ended_at IS NOT NULL AND NOT forwarded;
CREATE INDEX IF NOT EXISTS task_by_group ON task(task_group);
CREATE INDEX IF NOT EXISTS task_by_end ON task(ended_at);
"""
"""Times are in seconds since the epoch; `record`, `report`, `user_opts` and `user_runtime` are JSON."""


class Store:
    """The hub's database. Open and close it on the event loop's thread."""

    def __init__(self, path: Path) -> None:
        """Opens the file, readable by its owner only; makes it when it is not there.

        Raises:
            OSError, sqlite3.Error: the file cannot be made, opened or is not a database.
        """
        path.touch(mode=0o600)
        self._reader = _connect(path)
        self._writer = _connect(path)
        self._writer.executescript(SCHEMA)
        self._changes: queue.SimpleQueue[tuple[Change[Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_groups, name="store")
        self._thread.start()

    def read(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Returns all rows of a query."""
        return self._reader.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Returns the first row of a query, or None."""
        row: sqlite3.Row | None = self._reader.execute(sql, values).fetchone()
        return row

    async def write(self, change: Change[T]) -> T:
        """Runs `change` in a transaction and returns its value once it is on disk.

        Raises:
            Exception: whatever `change` raised; nothing of it is stored then.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._changes.put((change, done))
        return await done

    async def execute(self, sql: str, *values: Any) -> int:
        """Writes by a single statement; returns the number of rows that it changed."""
        return await self.write(lambda db: db.execute(sql, values).rowcount)

    def close(self) -> None:
        """Commits what is queued and closes the file."""
        self._changes.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()

    def _commit_groups(self) -> None:
        last = False
        while not last:
            group = [self._changes.get()]
            while not self._changes.empty():
                group.append(self._changes.get())
            last = None in group
            self._commit([entry for entry in group if entry is not None])

    def _commit(self, group: list[tuple[Change[Any], asyncio.Future[Any]]]) -> None:
        if not group:
            return
        ends: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for change, done in group:
                ends.append((done, *self._apply(change)))
            self._writer.execute("COMMIT")
        except sqlite3.Error as e:  # such as a full disk: nothing of the group is stored
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            ends = [(done, None, e) for _, done in group]
        loop = group[0][1].get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_tell, ends)

    def _apply(self, change: Change[Any]) -> tuple[Any, BaseException | None]:
        self._writer.execute("SAVEPOINT change")
        try:
            value = change(self._writer)
        except Exception as e:  # noqa: BLE001 - handed to whoever awaits the write
            self._writer.execute("ROLLBACK TO change")
            return None, e
        finally:
            self._writer.execute("RELEASE change")
        return value, None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # a result is acked to the broker once it is committed
    return connection


def _tell(ends: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for done, value, error in ends:
        if done.done():
            continue
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
