"""From a user name to a local account, without waiting for the name service in the event loop of the monitor.

A helper asks the name service (`accounts.server`). It is trusted less than the monitor: what it says is checked
(`processes.name_service_protocol`), and all texts are written here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from mep.processes import name_service_protocol
from mep.processes.answering import Client
from mep.processes.helper import HelperUnavailable
from mep.processes.name_service_protocol import DIALOGUE, MOST_NAME, LookUpFailed, ToNameService
from mep.processes.replaceable import Lost, Replaceable, Stopped
from mep.processes.time_limit import within
from mep.request.account import Account
from mep.request.refusal import Refused

TIMEOUT = 20.0
"""Seconds that a look-up of `NameService` may take, the start of a helper included."""
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
            ends_right=True,
        )
    if found.name != username:
        raise Refused(
            "account",
            f"identity maps to account {username!r}, but the name service answers with {found.name!r}",
            "Your identity is mapped to a local account that does not exist on this system under that name.",
        )
    return found


class NameService:
    """Looks up accounts and groups without holding up the loop. `account` is what its helper runs as.

    A slow look-up does not hold up others. A helper that dies, answers nonsense, or answers nothing at all for as long
    as a look-up may take, is replaced; what it owed is asked once more. What is asked again while it is being looked
    up is looked up once. Nothing is kept after that: the name service has caches of its own.
    """

    def __init__(self, account: Account) -> None:
        self._helper = Replaceable(lambda: Client.start(DIALOGUE, account))
        self._under_way: dict[tuple[ToNameService, str], asyncio.Task[Any]] = {}

    async def start(self) -> None:
        """Starts the helper ahead of the first question; the name service has no part in that.

        Raises:
            HelperUnavailable: it cannot be started, or does not work.
        """
        await self._helper.running()

    async def find(self, username: str) -> Account:
        """The account called `username`.

        Raises:
            Refused: stage `account`; there is none of exactly that name, or there is no answer.
        """
        return of_exactly_that_name(username, await self.look_up(username))

    async def look_up(self, username: str) -> Account | None:
        """What the name service answers when it is asked for `username`; the name in it may be another one.

        Raises:
            Refused: stage `account`; there is no answer.
        """
        found: Account | None = await self._once(ToNameService.ACCOUNT, username)
        return found

    async def group_ids(self, names: Iterable[str]) -> dict[str, int | None]:
        """The id of each group; None for a name that no group has.

        Raises:
            Refused: stage `account`; there is no answer.
        """
        asked = tuple(dict.fromkeys(names))
        found: list[int | None] = await asyncio.gather(*(self._once(ToNameService.GROUP, name) for name in asked))
        return dict(zip(asked, found, strict=True))

    async def stop(self) -> None:
        """Ends the helper for good. Look-ups under way, and any later ones, are refused."""
        await self._helper.stop()

    async def _once(self, kind: ToNameService, name: str) -> Any:
        """The look-up that is under way, or a new one. It goes on when the caller is cancelled: others may wait."""
        if len(name) > MOST_NAME:
            return None
        key = (kind, name)
        if key not in self._under_way:
            task = asyncio.get_running_loop().create_task(self._answer(kind, name))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(self._under_way[key])

    def _done(self, key: tuple[ToNameService, str], task: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # it has been looked at, even if nobody waits any more

    async def _answer(self, kind: ToNameService, name: str) -> Any:
        began = asyncio.get_running_loop().time()
        try:
            return await within(TIMEOUT, self._ask(kind, name))
        except asyncio.TimeoutError:
            if (client := self._helper.current) is not None and client.last_answer < began:
                client.give_up(f"it answered nothing for {TIMEOUT:g} s")
            reason = (
                f"the name service does not answer: {name!r} was looked up for {TIMEOUT:g} s; "
                "see whether its servers, and sssd or nslcd, are up"
            )
            raise Refused("account", reason, _TRY_LATER) from None
        except LookUpFailed as e:
            raise Refused("account", f"the look-up of {name!r} failed: {e}", _TRY_LATER) from None
        except Lost as e:
            reason = f"the name service helper was lost twice when asked for {name!r}; the last time {e}"
            raise Refused("account", reason, _TRY_LATER) from None
        except Stopped as e:
            raise Refused("account", str(e), _STOPPING) from None
        except HelperUnavailable as e:
            raise Refused("account", str(e), _BROKEN) from None

    async def _ask(self, kind: ToNameService, name: str) -> Any:
        return await self._helper.ask(lambda helper: helper.ask(kind, name_service_protocol.read, name=name))
