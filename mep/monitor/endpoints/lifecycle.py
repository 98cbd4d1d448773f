"""The life of a user endpoint as states and events: one table, every pair explicit, no side effects.

`table` feeds it events and carries out the actions.

              CHECKED_IN     COMMAND             EXITED_CLEAN             EXITED_BADLY       STOP      TOO_LATE
  STARTING    -> RUNNING     refresh, remember   forget, revive or tell   forget, tell user  -> STOPPING  kill
  RUNNING     -              refresh, remember   forget, revive if asked  forget, tell user  -> STOPPING  -
  STOPPING    -              remember            forget, revive if asked  forget             -            -
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """STARTING: executed, no heartbeat yet. A program that does not tell of its heartbeat begins as RUNNING."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Event(enum.Enum):
    """What happens to a user endpoint."""

    CHECKED_IN = "checked in"
    COMMAND = "start command while it lives"
    EXITED_CLEAN = "exited with status 0"
    EXITED_BADLY = "exited with another status, or by a signal"
    STOP = "the manager stops it"
    TOO_LATE = "no heartbeat within start_timeout"


class Action(enum.Enum):
    """What is to be done about it."""

    REFRESH = "write fresh credentials"
    REMEMBER = "keep the command for the grace period"
    FORGET = "remove it from the table, with its files"
    REVIVE = "start it again if a command was remembered"
    REVIVE_OR_TELL = "start it again if a command was remembered, else send a failure notice"
    TELL_USER = "send a failure notice"
    KILL = "kill it"
    TERMINATE = "ask it to stop"


@dataclass(frozen=True)
class Step:
    """The state after an event, and what to do."""

    state: State
    actions: tuple[Action, ...] = ()


_LIVE = (Action.REFRESH, Action.REMEMBER)
_ENDED = (Action.FORGET, Action.REVIVE)
_DIED = (Action.FORGET, Action.TELL_USER)

TABLE: dict[tuple[State, Event], Step] = {
    (State.STARTING, Event.CHECKED_IN): Step(State.RUNNING),
    (State.STARTING, Event.COMMAND): Step(State.STARTING, _LIVE),
    (State.STARTING, Event.EXITED_CLEAN): Step(State.STARTING, (Action.FORGET, Action.REVIVE_OR_TELL)),
    (State.STARTING, Event.EXITED_BADLY): Step(State.STARTING, _DIED),
    (State.STARTING, Event.STOP): Step(State.STOPPING, (Action.TERMINATE,)),
    (State.STARTING, Event.TOO_LATE): Step(State.STARTING, (Action.KILL,)),
    (State.RUNNING, Event.CHECKED_IN): Step(State.RUNNING),
    (State.RUNNING, Event.COMMAND): Step(State.RUNNING, _LIVE),
    (State.RUNNING, Event.EXITED_CLEAN): Step(State.RUNNING, _ENDED),
    (State.RUNNING, Event.EXITED_BADLY): Step(State.RUNNING, _DIED),
    (State.RUNNING, Event.STOP): Step(State.STOPPING, (Action.TERMINATE,)),
    (State.RUNNING, Event.TOO_LATE): Step(State.RUNNING),
    (State.STOPPING, Event.CHECKED_IN): Step(State.STOPPING),
    (State.STOPPING, Event.COMMAND): Step(State.STOPPING, (Action.REMEMBER,)),
    (State.STOPPING, Event.EXITED_CLEAN): Step(State.STOPPING, _ENDED),
    (State.STOPPING, Event.EXITED_BADLY): Step(State.STOPPING, (Action.FORGET,)),
    (State.STOPPING, Event.STOP): Step(State.STOPPING),
    (State.STOPPING, Event.TOO_LATE): Step(State.STOPPING),
}
