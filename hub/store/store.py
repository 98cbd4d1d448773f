"""The database: reads at once from SQLite's file, or on threads; writes in group commits on a thread of their own.

A read sees every change whose `write` has returned. Writes that arrive while a commit is under way share the next one,
so that thousands of small writes a second cost tens of disk syncs. A write that fails is undone alone.

A statement that is made once, with `bindparam` where a value goes, costs a third of one that is made for each call.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import queue
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import URL, Column, Connection, Engine, Row, Select, create_engine, event, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.schema import Table

from hub.shared_lock import SharedLock
from hub.store import migration
from hub.store.advisory_lock import AdvisoryLock

T = TypeVar("T")
Change = Callable[[Connection], T]
_Entry = tuple[Change[Any], asyncio.Future[Any]]
_End = tuple[asyncio.Future[Any], Any, BaseException | None]

READERS = 4
"""Reads that are under way at the same time; more wait."""
PART = 200
"""Rows that are read together where there may be any number: others get their turn after each part."""
ATTEMPTS = 5
"""To run a change that PostgreSQL undoes to end a deadlock."""
_UNDONE = ("40P01", "40001")
_POSTGRESQL = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    # A hub whose host is gone, or that hangs in a transaction, must not hold up the others.
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
    " -c idle_in_transaction_session_timeout=60000",
}


class Store:
    """The hub's database. Open and close it on the event loop's thread."""

    def __init__(self, url: URL, *, beside_hub: bool = False) -> None:
        """Connects, and makes or changes the tables. The file of SQLite is readable by its owner only.

        beside_hub: a command that changes something while a hub may run; it leaves the tables as they are.

        Raises:
            OSError, SQLAlchemyError: the database cannot be made or opened, or is not one.
            NewerDatabase: a later version of the hub has written it.
        """
        alone = url.get_backend_name() == "sqlite" and not beside_hub
        self._held = _hold(Path(str(url.database))) if alone else None
        self._reads = _engine(url, isolation_level="AUTOCOMMIT", pool_size=READERS, max_overflow=0)
        self._writes = _engine(url, pool_size=1, max_overflow=0)
        try:
            if not beside_hub:
                migration.upgrade(self._writes)
        except BaseException:
            self._writes.dispose()
            if self._held is not None:
                self._held.close()
            raise
        # SQLite answers from memory nearly always, before a thread could have been told.
        self._reader = self._reads.connect() if url.get_backend_name() == "sqlite" else None
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self.lock = (
            SharedLock() if self._reader is not None else AdvisoryLock(_engine(url, isolation_level="AUTOCOMMIT"))
        )
        self._changes: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._commit_groups, name="store-write")
        self._writer.start()

    async def read(self, query: Select[Any], **values: Any) -> Sequence[Row[Any]]:
        """Returns all rows of a query.

        Raises:
            SQLAlchemyError: the database cannot be read.
        """
        if self._reader is not None:
            return self._reader.execute(query, values).all()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._fetch, query, values)

    async def one(self, query: Select[Any], **values: Any) -> Row[Any] | None:
        """Returns the first row of a query, or None.

        Raises:
            SQLAlchemyError: the database cannot be read.
        """
        rows = await self.read(query, **values)
        return rows[0] if rows else None

    async def parts(
        self, query: Select[Any], *order: Column[Any], most: int = PART
    ) -> AsyncIterator[Sequence[Row[Any]]]:
        """Reads all rows of a query, `most` at a time; `order` are columns of it of which no two rows have the same.

        Raises:
            SQLAlchemyError: the database cannot be read.
        """
        ordered = query.order_by(*order).limit(most)
        rows = await self.read(ordered)
        while rows:
            yield rows
            last = tuple(getattr(rows[-1], column.name) for column in order)
            rows = await self.read(ordered.where(tuple_(*order) > last)) if len(rows) == most else ()

    async def write(self, change: Change[T]) -> T:
        """Runs `change` in a transaction and returns its value once it is on disk.

        Raises:
            Exception: whatever `change` raised; nothing of it is stored then.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._changes.put((change, done))
        return await done

    async def execute(self, statement: UpdateBase, **values: Any) -> int:
        """Writes by a single statement; returns the number of rows that it changed."""
        return await self.write(lambda db: db.execute(statement, values).rowcount)

    def close(self) -> None:
        """Commits what is queued and closes the database."""
        self._changes.put(None)
        self._writer.join()
        self.lock.close()
        self._readers.shutdown()
        if self._reader is not None:
            self._reader.close()
        self._writes.dispose()
        self._reads.dispose()
        if self._held is not None:
            self._held.close()

    def _fetch(self, query: Select[Any], values: Mapping[str, Any]) -> Sequence[Row[Any]]:
        with self._reads.connect() as db:
            return db.execute(query, values).all()

    def _commit_groups(self) -> None:
        last = False
        while not last:
            group = [self._changes.get()]
            while not self._changes.empty():
                group.append(self._changes.get())
            last = None in group
            self._commit([entry for entry in group if entry is not None])

    def _commit(self, group: list[_Entry]) -> None:
        if not group:
            return
        try:
            ends = self._transact(group)
        except DBAPIError:  # another hub and we waited for each other: what waits for one only does not
            ends = [self._alone(entry) for entry in group]
        loop = group[0][1].get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_tell, ends)

    def _transact(self, group: list[_Entry]) -> list[_End]:
        """Runs a group in one transaction.

        Raises:
            DBAPIError: PostgreSQL has undone it to end a deadlock.
        """
        try:
            with self._writes.begin() as db:
                return [(done, *_apply(db, change)) for change, done in group]
        except SQLAlchemyError as e:  # such as a full disk: nothing of the group is stored
            if _is_deadlock(e):
                raise
            return [(done, None, e) for _, done in group]

    def _alone(self, entry: _Entry) -> _End:
        error: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                return self._transact([entry])[0]
            except DBAPIError as e:
                error = e
        return entry[1], None, error


def _hold(path: Path) -> IO[bytes]:
    """Makes SQLite's file, and keeps other hubs from it for as long as what is returned is open.

    Raises:
        OSError: another hub has it, or it cannot be made.
    """
    path.touch(mode=0o600)
    # A file beside it: SQLite's own locks would end with any descriptor of the database that is closed.
    held = path.with_name(f"{path.name}-lock").open("ab")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        raise OSError("another hub has this file; several hubs on one database need PostgreSQL") from None
    return held


def sqlite_url(path: Path) -> URL:
    """Returns the URL of a database in one file."""
    return URL.create("sqlite", database=str(path))


def storable(text: str) -> str:
    """Makes of a text what a database takes: `?` for half of a surrogate pair, and for NUL (PostgreSQL)."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


@functools.cache
def upsert(dialect: str, table: Table, *changes: str) -> UpdateBase:
    """Makes an INSERT that in a row with the same primary key sets the columns `changes` instead."""
    new = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    given = {name: new.excluded[name] for name in changes}
    return new.on_conflict_do_update(index_elements=table.primary_key.columns, set_=given)


def _engine(url: URL, **options: Any) -> Engine:
    if url.get_backend_name() == "postgresql":
        options["connect_args"] = _POSTGRESQL
    engine = create_engine(url, hide_parameters=True, **options)  # parameters would be in the texts of errors
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        if "isolation_level" not in options:
            event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # or the module would begin transactions where it thinks fit
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # a result is acked to the broker once it is committed


def _begin_sqlite(db: Connection) -> None:
    db.exec_driver_sql("BEGIN IMMEDIATE")


def _apply(db: Connection, change: Change[Any]) -> tuple[Any, BaseException | None]:
    try:
        with db.begin_nested():
            return change(db), None
    except Exception as e:
        if _is_deadlock(e):
            raise
        return None, e  # to whoever awaits the write


def _is_deadlock(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _UNDONE


def _tell(ends: list[_End]) -> None:
    for done, value, error in ends:
        if done.done():
            continue
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
