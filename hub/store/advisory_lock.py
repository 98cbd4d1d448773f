"""`SharedLock` among all processes of a hub, by advisory locks of PostgreSQL: who dies lets go of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, bindparam, case, false, func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from hub.shared_lock import SharedLock

log = logging.getLogger(__name__)

PATIENCE = 5
"""Seconds for which a session waits to be alone before it is asked for anew, so that the hub can end meanwhile."""
MOST_ALONE = 8
"""Sessions that are alone, or wait for that; whoever comes then waits without one."""
_AGAIN = 0.05
_NOT_AVAILABLE = "55P03"
_KEY: Any = bindparam("key", type_=BigInteger)
_GATE = func.hashint8extended(_KEY, 1)
_SHARE = select(
    case((func.pg_try_advisory_xact_lock_shared(_GATE), func.pg_try_advisory_lock_shared(_KEY)), else_=false())
)
_LET_GO = select(func.pg_advisory_unlock_shared(_KEY))
_BE_NEXT = select(func.pg_advisory_lock(_GATE))
_BE_ALONE = select(func.pg_advisory_lock(_KEY))
_ALONE_NO_MORE = select(func.pg_advisory_unlock_all())


class AdvisoryLock(SharedLock):
    """One session holds all that this process shares, on a thread of its own; who is alone has a session meanwhile.
    Threads of its own wait for that: those of the event loop are for what is soon over.

    Whoever waits to be alone goes first here, too: holds a gate, another lock, through which all go who would share.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._sharer: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-lock")
        self._waiters = ThreadPoolExecutor(MOST_ALONE, thread_name_prefix="store-alone")
        self._places = asyncio.Semaphore(MOST_ALONE)

    @contextlib.asynccontextmanager
    async def share(self, key: str) -> AsyncIterator[None]:
        """Holds `key` together with others within the block.

        Raises:
            SQLAlchemyError: the database cannot be asked.
        """
        number = _number(key)
        loop = asyncio.get_running_loop()
        async with super().share(key):
            while not await loop.run_in_executor(self._thread, self._ask, _SHARE, number):
                await asyncio.sleep(_AGAIN)
            try:
                yield
            finally:
                with contextlib.suppress(SQLAlchemyError):  # with the session its locks have gone
                    await loop.run_in_executor(self._thread, self._ask, _LET_GO, number)

    @contextlib.asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Holds `key` within the block, while nobody else does.

        Raises:
            SQLAlchemyError: the database cannot be asked.
        """
        number = _number(key)
        async with super().alone(key), self._places:
            while (session := await self._session_alone(number)) is None:
                pass
            try:
                yield
            finally:
                await asyncio.get_running_loop().run_in_executor(self._thread, _end_alone, session)

    async def _session_alone(self, number: int) -> Connection | None:
        """Waits on a thread, which cannot be cancelled: what it gets after that is let go of."""
        waiting = asyncio.get_running_loop().run_in_executor(self._waiters, self._wait_alone, number)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            waiting.add_done_callback(self._end_unwanted)
            raise

    def close(self) -> None:
        """Lets go of everything."""
        self._waiters.shutdown()
        self._thread.shutdown()
        if self._sharer is not None:
            self._sharer.close()
        self._engine.dispose()

    def _end_unwanted(self, waited: asyncio.Future[Connection | None]) -> None:
        if not waited.cancelled() and waited.exception() is None and (session := waited.result()) is not None:
            with contextlib.suppress(RuntimeError):  # this process ends, and its sessions with it
                self._thread.submit(_end_alone, session)

    def _ask(self, question: Any, number: int) -> bool:
        if self._sharer is None:
            self._sharer = self._engine.connect()
        try:
            return bool(self._sharer.execute(question, {"key": number}).scalar_one())
        except SQLAlchemyError:
            self._sharer.invalidate()
            self._sharer.close()
            self._sharer = None
            raise

    def _wait_alone(self, number: int) -> Connection | None:
        session = self._engine.connect()
        try:
            session.execute(text(f"SET lock_timeout = '{PATIENCE}s'"))
            session.execute(_BE_NEXT, {"key": number})
            session.execute(_BE_ALONE, {"key": number})
        except DBAPIError as e:
            session.invalidate()  # with whatever it holds
            session.close()
            if getattr(e.orig, "sqlstate", None) == _NOT_AVAILABLE:
                return None
            raise
        return session


def _end_alone(session: Connection) -> None:
    with contextlib.suppress(SQLAlchemyError), session:
        session.execute(_ALONE_NO_MORE)


def _number(key: str) -> int:
    """Makes the number that PostgreSQL knows a key by."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
