"""What admins have ordered, and what that means for a request: drained, banned, killed.

    drain   no new user endpoints, for anybody; those that run go on. A start waits when the drain ends within its
            patience, and is refused otherwise
    ban     no new user endpoints for an account, or for who has an identity among those that are linked
    kill    a user endpoint is ended, and not started again by a command that came before

`monitor.order_requests` gives the first two, which stay over restarts (`orders_file`), and remembers the third here for
requests that are under way. `pipeline` asks, and once more at the gate `endpoint_events`. A file that
cannot be read counts as a drain: nobody who was banned comes in by that, and what runs goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from identity import account_name
from mep.monitor.stages import orders_file
from mep.monitor.stages.fair_queue import MOST_WAITING
from mep.monitor.stages.orders_file import MOST, Order
from mep.processes import forked
from mep.processes.control_protocol import Kind
from mep.processes.time_limit import within
from mep.request.account import Account
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

STAGE = "orders"
FILE_TIMEOUT = 60.0
"""Seconds for the child that reads or writes the file."""
_IDENTITY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[^\s@]+@[^\s@]+")
_UNREADABLE = "the orders of its administrators cannot be read"


@dataclass(frozen=True)
class Kill:
    """Which user endpoints are to end: one, those of an account or a requester, or all. refusal: for their users."""

    kind: Kind
    target: str
    refusal: Refusal

    def concerns(self, command: StartEndpoint, account: Account) -> bool:
        """Whether it is about this user endpoint."""
        if self.kind is Kind.KILL:
            return command.name == self.target
        return self.kind is Kind.KILL_ALL or self.target in _names(command, account)


class Orders:
    """Belongs to the event loop. folder: where they are kept. changed: called when others are in force."""

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        self._folder = folder
        self._changed = changed
        self._in_force: dict[str, Order] = {}
        """By target; the drain has none."""
        self._banned: Mapping[str, Refusal] = {}
        self._broken = ""
        self._written: tuple[Order, ...] = ()
        self._writing = asyncio.Lock()
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: Counter[str] = Counter()
        self._under_way: dict[str, tuple[str, int]] = {}
        """Requests, each with the name of its user endpoint, and how many kills there had been when it began."""
        self._kills: dict[tuple[Kind, str], tuple[int, Kill]] = {}
        """The newest for each target, numbered, while requests are under way."""
        self._killed = 0

    async def load(self) -> None:
        """Puts in force what was kept."""
        try:
            kept = await forked.run(functools.partial(orders_file.read, self._folder), FILE_TIMEOUT)
        except (OSError, ValueError) as e:
            self._broken = f"{orders_file.path(self._folder)}: {e}"
            log.critical("nothing is started: %s. %s", self._broken, _REMEDY)
        else:
            self._in_force = {order.target: order for order in kept}
            self._written = tuple(kept)
        self._tell()

    def close(self) -> None:
        """Nothing ends by the clock any more."""
        if self._timer is not None:
            self._timer.cancel()

    # Given, and taken back

    def give(self, order: Order) -> None:
        """Puts one that stays in force. Raises ValueError: it cannot be given."""
        self._need_file()
        if order.until and order.until <= time.time():
            raise ValueError("its end is over already")
        if order.kind is Kind.DRAIN and not order.reason:
            raise ValueError("users read why; give a reason")
        if order.kind is not Kind.DRAIN and not is_somebody(order.target):
            raise ValueError(f"{order.target!r} is neither the name of an account nor an identity")
        if len(self._in_force) >= MOST and order.target not in self._in_force:
            raise ValueError(f"{MOST} orders are in force, and no more may; name more people in config.yaml: accounts")
        self._in_force[order.target] = order
        self._tell()

    def take_back(self, target: str) -> bool:
        """Ends the ban of the target, or the drain; whether there was one. Raises ValueError: it cannot be told."""
        self._need_file()
        there = self._in_force.pop(target, None) is not None
        self._tell()
        return there

    async def keep(self) -> None:
        """Returns once what is in force is on the disk. Raises OSError."""
        async with self._writing:
            orders = tuple(self._in_force.values())
            if orders != self._written:
                await forked.run(functools.partial(orders_file.write, self._folder, orders), FILE_TIMEOUT)
                self._written = orders

    def kill(self, kill: Kill) -> None:
        """Refuses the requests under way that it concerns, when they come so far."""
        self._killed += 1
        if self._under_way:
            self._kills[kill.kind, kill.target] = self._killed, kill

    # Asked

    @contextlib.contextmanager
    def under_way(self, command: StartEndpoint) -> Iterator[None]:
        """Within this the request is under way: kills from now on concern it."""
        self._under_way[command.request_id] = command.name, self._killed
        try:
            yield
        finally:
            self._under_way.pop(command.request_id, None)
            if not self._under_way:
                self._kills.clear()

    def is_under_way(self, name: str) -> bool:
        """Whether a request for the user endpoint of this name is."""
        return any(name == other for other, _ in self._under_way.values())

    def banned_identities(self) -> Mapping[str, Refusal]:
        """What is told to who has one of these identities (ids and user names, in lower case)."""
        return self._banned

    def check(self, command: StartEndpoint, account: Account) -> None:
        """Returns if the account may have a user endpoint by this request. Raises Refused: banned, or killed since."""
        for name in filter(None, _names(command, account)):  # no name is no target, and the drain has none
            if (order := self._in_force.get(name)) is not None:
                raise Refused.of(banned(order))
        _, began = self._under_way.get(command.request_id, (command.name, self._killed))
        for number, kill in self._kills.values():
            if number > began and kill.concerns(command, account):
                raise Refused.of(kill.refusal)

    def check_start(self, command: StartEndpoint, account: Account) -> None:
        """Returns if a new one may be started now. Raises Refused: as `check`; or drained."""
        self.check(command, account)
        if (drain := self._drain()) is not None:
            raise Refused.of(_drained(drain))

    async def drain_over(self, requester: str, deadline: float) -> None:
        """Waits for the end of a drain that ends before `deadline`, a time of the loop's clock.

        Raises:
            Refused: it does not; or too many requests of this requester wait for it.
        """
        loop = asyncio.get_running_loop()
        while (drain := self._drain()) is not None:
            left = drain.until - time.time()
            if not drain.until or loop.time() + left > deadline or self._waiting[requester] >= MOST_WAITING:
                raise Refused.of(_drained(drain))
            self._waiting[requester] += 1
            try:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(max(0.0, left), self._news.wait())
            finally:
                self._waiting[requester] -= 1
                if not self._waiting[requester]:
                    del self._waiting[requester]

    def facts(self) -> dict[str, object]:
        """What is in force, for `mep status`."""
        drain = self._drain()
        bans = [_facts(order) for order in self._in_force.values() if order.target]
        return {"drain": None if drain is None else _facts(drain), "bans": bans[:_MOST_TOLD], "banned": len(bans)}

    def line(self) -> str:
        """The same for people; empty when nothing is."""
        parts = [f"orders cannot be read, nothing is started: {self._broken}. {_REMEDY}"] if self._broken else []
        drain, bans = self._in_force.get(""), sum(1 for name in self._in_force if name)
        if drain is not None:
            parts.append(f"drained{_until(drain, ' until ')}: {drain.reason}")
        return "; ".join([*parts, *([f"{bans} banned"] if bans else [])])

    def _need_file(self) -> None:
        if self._broken:
            raise ValueError(f"{self._broken}. {_REMEDY}")

    def _drain(self) -> Order | None:
        if self._broken:
            return Order(Kind.DRAIN, "", _UNREADABLE, os.geteuid(), 0, 0)
        return self._in_force.get("")

    def _tell(self) -> None:
        """Something else is in force now; sees to it that what has an end ends."""
        now = time.time()
        self._in_force = {name: each for name, each in self._in_force.items() if not each.until or each.until > now}
        self._banned = {name: banned(each) for name, each in self._in_force.items() if may_be_identity(name)}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if ends := [order.until for order in self._in_force.values() if order.until]:
            delay = min(max(0.0, min(ends) - now), _LOOK_AGAIN)
            self._timer = asyncio.get_running_loop().call_later(delay, self._tell)
        news, self._news = self._news, asyncio.Event()
        news.set()
        self._changed()


_MOST_TOLD = 64
"""Bans that a status has."""
_LOOK_AGAIN = 60.0
"""Seconds after which the clock on the wall is looked at again: somebody may have set it."""
_REMEDY = (
    "Move that file away, restart the manager (`mep restart`), and give the orders again; the audit trail has them "
    "(event asked)"
)


def may_be_identity(name: str) -> bool:
    """Whether the name, in lower case, can be the id or the user name of an identity; of an account it may be, too."""
    return _IDENTITY.fullmatch(name) is not None


def is_somebody(name: str) -> bool:
    """Whether the name, in lower case, can be that of an account or an identity."""
    return may_be_identity(name) or account_name.problem(name, directory_names=True) is None


def ended_by(reason: str, by: str) -> Refusal:
    """What is told to the user of a user endpoint that is killed. by: who has ordered it, for the admin."""
    why = f": {reason}" if reason else "."
    return Refusal(
        STAGE,
        f"killed by {by}{why}",
        f"The administrators of this endpoint have ended your user endpoint{_sentence(why)} Submit again to start it "
        "anew.",
    )


def banned(order: Order) -> Refusal:
    why, until = f": {order.reason}" if order.reason else ".", _until(order, " until ")
    return Refusal(
        STAGE,
        f"{order.target!r} is banned{until} (mep ban){why.rstrip('.')}",
        f"You may not use this endpoint{until}{_sentence(why)} Please ask its administrators.",
        ends_right=order.kind is Kind.BAN_AND_END,
    )


def _drained(order: Order) -> Refusal:
    then = f"from {_until(order, '')} on" if order.until else "later"
    until = _until(order, " until ")
    return Refusal(
        STAGE,
        f"drained{until} (mep drain): {order.reason}",
        f"This endpoint starts nothing new{until}: {_sentence(order.reason)} Please submit again {then}.",
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _until(order: Order, before: str) -> str:
    """The end of an order as people write it; nothing when it has none."""
    return f"{before}{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(order.until + 59))}" if order.until else ""


def _facts(order: Order) -> dict[str, object]:
    facts: dict[str, object] = {"since": order.at, "until": order.until, "reason": order.reason, "by_uid": order.by}
    return {**facts, "target": order.target, "ends": order.kind is Kind.BAN_AND_END} if order.target else facts


def _names(command: StartEndpoint, account: Account) -> tuple[str, str, str]:
    """What an order may call this user: the account, and the identity that asks. Those that are linked to it the mapper
    compares (`banned_identities`)."""
    return account.name.lower(), command.requester.lower(), command.requester_name.lower()
