"""Decides when an endpoint stops by itself. Pure: counted history in, verdict out.

`endpoint` calls `beat` once every heartbeat period with the numbers of tasks received and results forwarded since the
start. *Movement* is a change of either number since the last beat; it resets both counters.

soft limit  that many beats in a row without movement, after at least one task or result, and with as many results
            forwarded as tasks received: stop. 0: never stop by itself. One that was started again from a command that
            an earlier one had need not wait for a task: that one may have run it.
hard limit  more than that many beats in a row without movement, whatever is outstanding: stop. In force only when
            there is a soft limit; never smaller than soft + 1.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdleLimits:
    """In heartbeats."""

    soft: int = 0
    hard: int = 5760

    def __post_init__(self) -> None:
        object.__setattr__(self, "soft", max(0, self.soft))
        object.__setattr__(self, "hard", max(self.soft + 1, self.hard))


@dataclass(frozen=True, slots=True)
class History:
    """What was seen until the last beat: two totals, and the beats in a row without movement."""

    received: int = 0
    forwarded: int = 0
    soft: int = 0
    hard: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`stop` says why to stop now. `beats_left` is the number of beats to a stop that is in sight, else None."""

    stop: str | None = None
    beats_left: int | None = None


def beat(
    limits: IdleLimits, history: History, received: int, forwarded: int, *, revived: bool = False
) -> tuple[History, Verdict]:
    """Counts one heartbeat: returns the history after it, and what follows from it."""
    if not limits.soft or (received, forwarded) != (history.received, history.forwarded):
        return History(received, forwarded), Verdict()
    done = (revived or received > 0 or forwarded > 0) and forwarded >= received
    history = History(received, forwarded, history.soft + done, history.hard + 1)
    if done:
        return history, _soft(limits, history)
    return history, _hard(limits, history)


def _soft(limits: IdleLimits, history: History) -> Verdict:
    left = limits.soft - history.soft
    if left > 0:
        return Verdict(beats_left=left)
    return Verdict(stop=f"idle for {history.soft} heartbeats, everything answered (idle_heartbeats_soft)")


def _hard(limits: IdleLimits, history: History) -> Verdict:
    if history.hard > limits.hard:
        return Verdict(stop=f"no task and no result for {history.hard} heartbeats (idle_heartbeats_hard)")
    if history.hard > limits.soft:
        return Verdict(beats_left=limits.hard - history.hard + 1)
    return Verdict()
