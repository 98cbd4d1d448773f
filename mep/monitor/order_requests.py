"""Carries out the orders that come on the control socket: kill, drain, undrain, ban, unban. In the monitor.

What stays is in force at once, and answered when it is on the disk. A kill is answered when what it concerns has ended.
The text of an answer is a JSON object: `error`, or what was done. `manager` has who asked, and puts it on record.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence

from mep.monitor.background import Background
from mep.monitor.endpoints.kept import KeptEndpoints
from mep.monitor.endpoints.table import STOP_TIMEOUT, TELL_TIMEOUT, EndpointTable
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages import orders as texts
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.orders import Kill, Orders
from mep.monitor.stages.orders_file import STAY, Order
from mep.processes.control_protocol import Kind, Outcome, Request
from mep.processes.named_sockets import Peer

log = logging.getLogger(__name__)

END_TIMEOUT = TELL_TIMEOUT + STOP_TIMEOUT + 15.0
"""Seconds in which what is killed has ended, unless nobody can end it: it is told why, asked, and killed."""
_MOST_NAMED = 50
"""User endpoints that an answer names; it counts all."""
_KILLS = (Kind.KILL, Kind.KILL_OF, Kind.KILL_ALL, Kind.BAN_AND_END)

Done = dict[str, object]


class OrderRequests:
    """Belongs to the event loop. review: looks at the right of all that run once more."""

    def __init__(
        self,
        orders: Orders,
        table: EndpointTable,
        kept: KeptEndpoints,
        decisions: Decisions,
        review: Callable[[], None],
    ) -> None:
        self._orders = orders
        self._table = table
        self._kept = kept
        self._decisions = decisions
        self._review = review
        self._background = Background()
        self._begun = asyncio.Event()
        self._closed = False

    def ask(self, request: Request, caller: Peer, number: str, told: Callable[[Outcome, str], None]) -> None:
        """Begins to carry out an order. number: what it is called in the audit trail. told: the outcome, in the end."""

        async def answer() -> None:
            await self._begun.wait()
            try:
                if self._closed:
                    raise ValueError("the manager is being stopped, or started anew; try again")  # noqa: TRY301
                outcome, done = await self._carry_out(request, caller, number)
            except ValueError as e:
                outcome, done = Outcome.REFUSED, {"error": str(e)}
            except OSError as e:
                log.error("[%s] in force, but not on the disk: %s", number, e)
                outcome, done = Outcome.NOT_KEPT, {"error": str(e)}
            except Exception as e:
                log.exception("[%s] unexpected error", number)
                outcome, done = Outcome.REFUSED, {"error": f"unexpected error ({type(e).__name__}), see the log"}
            told(outcome, json.dumps(done))

        self._background.start(answer())

    def begin(self) -> None:
        """It is known what runs: from now on orders are carried out. Those that came before have waited."""
        self._begun.set()

    def close(self) -> None:
        """Nothing is carried out any more, and who waits is not told."""
        self._closed = True
        self._background.give_up()

    async def _carry_out(self, request: Request, caller: Peer, number: str) -> tuple[Outcome, Done]:
        """Raises ValueError: the order cannot be given. OSError: it is not on the disk."""
        done: Done = {}
        kind, target, by = request.kind, request.target.lower(), f"uid {caller.uid} ({number})"
        refusal = texts.ended_by(request.reason, by)
        if kind in STAY:
            order = Order(kind, target, request.reason, caller.uid, int(time.time()), request.until)
            self._orders.give(order)
            refusal = texts.banned(order)
        elif kind in (Kind.UNDRAIN, Kind.UNBAN):
            done["was"] = self._orders.take_back(target)
        if kind in _KILLS:
            kill = Kill(
                Kind.KILL_OF if kind is Kind.BAN_AND_END else kind,
                request.target if kind is Kind.KILL else target,
                refusal,
            )
            ending = self._begin_to_end(kill, number)
            if kind is Kind.KILL and not ending and not self._orders.is_under_way(request.target):
                raise ValueError(f"no user endpoint of the name {request.target!r} runs")
        if kind is Kind.BAN_AND_END:
            self._review()  # also of who has a banned identity linked to the one that asked
        if kind in (*STAY, Kind.UNDRAIN, Kind.UNBAN):
            await self._orders.keep()
        if kind in _KILLS:
            done |= await _ended(ending)
        return Outcome.DONE, done

    def _begin_to_end(self, kill: Kill, number: str) -> list[UserEndpoint]:
        self._orders.kill(kill)
        concerned = [each for each in self._table if kill.concerns(each.command, each.account)]
        for endpoint in concerned:
            self._decisions.note(
                "killed", endpoint.command.request_id, **endpoint.facts(), order=number, **kill.refusal.on_record()
            )
            self._table.kill(endpoint, kill.refusal)
            self._kept.keep(endpoint)
        return concerned


async def _ended(endpoints: Sequence[UserEndpoint]) -> Done:
    """What became of them, once they have ended, or nobody could end them."""
    if endpoints:
        waiting = [asyncio.ensure_future(each.forgotten.wait()) for each in endpoints]
        try:
            await asyncio.wait(waiting, timeout=END_TIMEOUT)
        finally:
            for each in waiting:
                each.cancel()
    named = [
        {
            "name": each.name,
            "account": each.account.name,
            "pid": each.pid,
            "ended": each.exit.ending if each.forgotten.is_set() else None,
        }
        for each in sorted(endpoints, key=lambda each: each.forgotten.is_set())[:_MOST_NAMED]
    ]
    left = sum(not each.forgotten.is_set() for each in endpoints)
    return {"user_endpoints": named, "concerned": len(endpoints), "left": left}
