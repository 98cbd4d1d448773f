"""From a user name to a local account, without waiting for the name service in the event loop.

A process asks the name service (`accounts.server`), and is supervised here. It is trusted less than the monitor: what
it says is checked, and all texts are written here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mep.processes.supervised import Worker, WorkerUnavailable
from mep.request.account import Account
from mep.request.refusal import Refused

TIMEOUT = 20.0
"""Seconds that a look-up of `NameService` may take, the start of a worker included."""
MAX_LINE = 2**20
"""Bytes of one answer of the worker: an account can be a member of 65536 groups."""
_MAX_TEXT = 4096
"""Characters of one text in it."""
_NO_ID = 2**32 - 1
"""To the kernel this is no id but the word "unchanged"."""
_TRY_LATER = "The user directory of this system does not answer at the moment; please try again later."
_STOPPING = "This endpoint is being stopped; please submit again later."
_BROKEN = "This endpoint cannot start user endpoints at the moment; please tell its administrators."


def of_exactly_that_name(username: str, found: Account | None) -> Account:
    """The account that was found for `username`.

    Raises:
        Refused: stage `account`; there is none of exactly that name.
    """
    if found is None:
        raise Refused(
            "account",
            f"identity maps to account {username!r}, which does not exist on this system",
            "Your identity is mapped to a local account that does not exist on this system.",
        )
    if found.name != username:
        raise Refused(
            "account",
            f"identity maps to account {username!r}, but the name service answers with {found.name!r}",
            "Your identity is mapped to a local account that does not exist on this system under that name.",
        )
    return found


class NameService:
    """Looks up accounts and groups without holding up the loop. `account_name` is what its worker runs as.

    A slow look-up does not hold up others. A worker that dies, answers nonsense, or answers nothing at all for as long
    as a look-up may take, is replaced; what it owed is asked once more. What is asked again while it is being looked
    up is looked up once. Nothing is kept after that: the name service has caches of its own.
    """

    def __init__(self, account_name: str) -> None:
        self._account = account_name
        self._starting = asyncio.Lock()
        self._talk: _Talk | None = None
        self._under_way: dict[tuple[str, object], asyncio.Task[Any]] = {}
        self._stopped = False

    async def start(self) -> None:
        """Starts the worker and waits until it answers; the name service has no part in that.

        Raises:
            WorkerUnavailable: it cannot be started, or does not work.
        """
        try:
            await asyncio.wait_for(self._ask("group_ids", (), _ids), TIMEOUT)
        except (asyncio.TimeoutError, _Lost, _Failed) as e:
            await self._end_worker()
            reason = str(e) or f"no answer within {TIMEOUT:g} s"
            raise WorkerUnavailable(
                f"the name service worker does not work: {reason}; its own words are in the log"
            ) from None

    async def find(self, username: str) -> Account:
        """The account called `username`.

        Raises:
            Refused: stage `account`; there is none of exactly that name, or there is no answer.
        """
        return of_exactly_that_name(username, await self._once("find", username, _account))

    async def group_ids(self, names: Iterable[str]) -> dict[str, int | None]:
        """The id of each group; None for a name that no group has.

        Raises:
            Refused: stage `account`; there is no answer.
        """
        asked = tuple(dict.fromkeys(names))
        if not asked:
            return {}
        found: list[int | None] = await self._once("group_ids", asked, _ids)
        return dict(zip(asked, found, strict=True))

    async def stop(self) -> None:
        """Ends the worker for good. Look-ups under way, and any later ones, are refused."""
        self._stopped = True
        await self._end_worker()

    async def _once(self, kind: str, what: str | tuple[str, ...], decode: _Decode) -> Any:
        """The look-up that is under way, or a new one. It goes on when the caller is cancelled: others may wait."""
        key = (kind, what)
        if key not in self._under_way:
            task = asyncio.get_running_loop().create_task(self._answer(kind, what, decode))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(self._under_way[key])

    def _done(self, key: tuple[str, object], task: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # it has been looked at, even if nobody waits any more

    async def _answer(self, kind: str, what: str | tuple[str, ...], decode: _Decode) -> Any:
        began = asyncio.get_running_loop().time()
        try:
            return await asyncio.wait_for(self._ask(kind, what, decode), TIMEOUT)
        except asyncio.TimeoutError:
            if self._talk is not None and self._talk.heard < began:
                self._talk.give_up(f"it answered nothing for {TIMEOUT:g} s")
            reason = (
                f"the name service does not answer: {what!r} was looked up for {TIMEOUT:g} s; "
                "see whether its servers, and sssd or nslcd, are up"
            )
            raise Refused("account", reason, _TRY_LATER) from None
        except _Failed as e:
            raise Refused("account", f"the look-up of {what!r} failed: {e}", _TRY_LATER) from None
        except _Lost as e:
            reason = f"the name service worker was lost twice when asked for {what!r}; the last time {e}"
            raise Refused("account", reason, _TRY_LATER) from None
        except WorkerUnavailable as e:
            raise Refused("account", str(e), _BROKEN) from None

    async def _ask(self, kind: str, what: str | tuple[str, ...], decode: _Decode) -> Any:
        try:
            return await (await self._talk_now()).ask(kind, what, decode)
        except _Lost:  # what it died of may be another request
            return await (await self._talk_now()).ask(kind, what, decode)

    async def _talk_now(self) -> _Talk:
        async with self._starting:
            if self._stopped:
                raise Refused("account", "the manager is being stopped", _STOPPING)
            if self._talk is None or self._talk.over is not None:
                self._talk = _Talk(await Worker.start("mep.accounts.server", self._account, MAX_LINE))
            return self._talk

    async def _end_worker(self) -> None:
        async with self._starting:
            talk, self._talk = self._talk, None
        if talk is not None:
            await talk.end()


class _Lost(Exception):
    """The worker that was asked has ended, or had to be ended. The text says why."""


class _Failed(Exception):
    """The worker could not look it up. The text is the worker's."""


_Decode = Callable[[Any, Any], Any]
"""What was asked and what came -> the answer. Raises ValueError when it cannot be the answer to that."""


class _Talk:
    """One worker and what it still owes. It is over as a whole, and `over` says why."""

    def __init__(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        self.heard = loop.time()
        self.over: str | None = None
        self._worker = worker
        self._numbers = itertools.count()
        self._owed: dict[int, tuple[asyncio.Future[Any], Callable[[Any], Any]]] = {}
        self._reading = loop.create_task(self._read())

    async def ask(self, kind: str, what: str | Sequence[str], decode: _Decode) -> Any:
        """Raises _Lost, _Failed."""
        if self.over is not None:
            raise _Lost(self.over)
        number, loop = next(self._numbers), asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._owed[number] = (future, lambda found: decode(what, found))  # owed until it comes, wanted or not
        self._worker.writer.write(json.dumps({"id": number, kind: what}).encode() + b"\n")
        return await future

    def give_up(self, reason: str) -> None:
        """Ends the worker; whoever waits for it is told."""
        self.over = self.over or reason
        self._worker.kill()
        while self._owed:
            future, _ = self._owed.popitem()[1]
            if not future.done():
                future.set_exception(_Lost(self.over))

    async def end(self) -> None:
        """Ends the worker, and waits until it is gone."""
        self.give_up("it was stopped")
        await self._worker.end()
        await self._reading

    async def _read(self) -> None:
        reason = "it ended by itself"
        try:
            while (line := await self._worker.reader.readline()).endswith(b"\n"):
                self._take(line)
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            reason = f"its answer made no sense ({type(e).__name__}: {e})"
        except OSError as e:
            reason = f"it could not be read from ({e})"
        self.give_up(reason)
        await self._worker.end()

    def _take(self, line: bytes) -> None:
        answer = json.loads(line)
        number = _id(answer["id"])
        future, decode = self._owed[number]
        result = _Failed(_text(answer["failed"])) if "failed" in answer else decode(answer["found"])
        del self._owed[number]
        self.heard = asyncio.get_running_loop().time()
        if future.done():  # nobody waits any more
            return
        if isinstance(result, _Failed):
            future.set_exception(result)
        else:
            future.set_result(result)


def _account(_username: str, found: Any) -> Account | None:
    if found is None:
        return None
    names = Account.__dataclass_fields__
    if not isinstance(found, dict) or set(found) != set(names):
        raise ValueError("not an account")
    texts = {name: _text(found[name]) for name in ("name", "gecos", "home", "shell")}
    gid, groups = _id(found["gid"]), found["groups"]
    if not isinstance(groups, list):
        raise ValueError("groups are not a list")  # noqa: TRY004 - a type is a value here
    return Account(uid=_id(found["uid"]), gid=gid, groups=tuple(sorted({gid, *map(_id, groups)})), **texts)


def _ids(names: Sequence[str], found: Any) -> list[int | None]:
    if not isinstance(found, list) or len(found) != len(names):
        raise ValueError("not as many ids as names")
    return [None if value is None else _id(value) for value in found]


def _id(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _NO_ID:
        raise ValueError("an id is not a whole number in range")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or "\0" in value:
        raise ValueError("a text is none, or too long, or has a NUL")
    return value
