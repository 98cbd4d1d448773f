"""The life of a user endpoint as states and events: one table, every pair explicit, no side effects.

`table` tells what has happened, gets the next state and what is to be done about it, and does it. In the monitor.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """What is known of a user endpoint.

    "asked again": a start command has come for it lately. It may not have taken the task that the command came for, so
    whoever sent it gets an answer: this one ends, and another is started by the same command, or a refusal is told.
    Once it takes no more tasks the command is not forgotten any more.
    """

    STARTING = "starting"
    """Executed, no heartbeat yet. A program that does not tell of its heartbeat begins as RUNNING."""
    STARTING_ASKED = "starting, asked again"
    RUNNING = "running"
    RUNNING_ASKED = "running, asked again"
    DRAINING = "draining"
    """It has said that it takes no more tasks."""
    DRAINING_ASKED = "draining, asked again"
    STOPPING = "stopping"
    """The manager has asked it to stop."""
    STOPPING_ASKED = "stopping, asked again"
    MISSED = "missed"
    """It ended while no manager ran: killed, or just idle. Its user is told only when no start command comes: whoever
    waits for it sends one, or one is waiting already."""
    ENDED = "ended"


class Event(enum.Enum):
    """What happens to a user endpoint."""

    CHECKED_IN = "its first heartbeat"
    DRAINS = "it takes no more tasks"
    COMMAND = "a start command for it"
    GRACE_OVER = "the grace period after the newest start command is over"
    TIMED_OUT = "what its state waits for has not come in time: first heartbeat, end, or a command for a missed one"
    STOP = "the manager stops it"
    EXITED_CLEAN = "exited with status 0"
    EXITED_BADLY = "exited with another status, or by a signal"
    FOUND_ENDED = "a new manager finds that it has ended"


class Action(enum.Enum):
    """What is to be done about it, in the order of a step."""

    REFRESH = "write fresh credentials"
    REMEMBER = "begin the grace period anew; GRACE_OVER at its end"
    AWAIT_COMMAND = "wait for a command; TIMED_OUT after the grace period"
    TERMINATE = "ask it to stop; TIMED_OUT when it has not after some time"
    KILL = "kill it"
    FORGET = "remove it from the table, with its files"
    REPORT = "put its end on record"
    REVIVE = "start it again with its newest command"
    TELL_USER = "send a failure notice"


@dataclass(frozen=True)
class Step:
    """The state after an event, and what to do."""

    state: State
    actions: tuple[Action, ...] = ()


_ASKED = (Action.REFRESH, Action.REMEMBER)
_OVER = (Action.FORGET, Action.REPORT)
_REVIVED = (Action.FORGET, Action.REPORT, Action.REVIVE)
_DIED = (Action.FORGET, Action.REPORT, Action.TELL_USER)
_FOUND = (Action.REPORT, Action.AWAIT_COMMAND)

TABLE: dict[State, dict[Event, Step]] = {
    State.STARTING: {
        Event.CHECKED_IN: Step(State.RUNNING),
        Event.DRAINS: Step(State.STARTING),
        Event.COMMAND: Step(State.STARTING_ASKED, _ASKED),
        Event.GRACE_OVER: Step(State.STARTING),
        Event.TIMED_OUT: Step(State.STARTING, (Action.KILL,)),
        Event.STOP: Step(State.STOPPING, (Action.TERMINATE,)),
        Event.EXITED_CLEAN: Step(State.ENDED, _DIED),
        Event.EXITED_BADLY: Step(State.ENDED, _DIED),
        Event.FOUND_ENDED: Step(State.MISSED, _FOUND),
    },
    State.STARTING_ASKED: {
        Event.CHECKED_IN: Step(State.RUNNING_ASKED),
        Event.DRAINS: Step(State.STARTING_ASKED),
        Event.COMMAND: Step(State.STARTING_ASKED, _ASKED),
        Event.GRACE_OVER: Step(State.STARTING),
        Event.TIMED_OUT: Step(State.STARTING_ASKED, (Action.KILL,)),
        Event.STOP: Step(State.STOPPING_ASKED, (Action.TERMINATE,)),
        Event.EXITED_CLEAN: Step(State.ENDED, _REVIVED),
        Event.EXITED_BADLY: Step(State.ENDED, _DIED),
        Event.FOUND_ENDED: Step(State.ENDED, _REVIVED),
    },
    State.RUNNING: {
        Event.CHECKED_IN: Step(State.RUNNING),
        Event.DRAINS: Step(State.DRAINING),
        Event.COMMAND: Step(State.RUNNING_ASKED, _ASKED),
        Event.GRACE_OVER: Step(State.RUNNING),
        Event.TIMED_OUT: Step(State.RUNNING),
        Event.STOP: Step(State.STOPPING, (Action.TERMINATE,)),
        Event.EXITED_CLEAN: Step(State.ENDED, _OVER),
        Event.EXITED_BADLY: Step(State.ENDED, _DIED),
        Event.FOUND_ENDED: Step(State.MISSED, _FOUND),
    },
    State.RUNNING_ASKED: {
        Event.CHECKED_IN: Step(State.RUNNING_ASKED),
        Event.DRAINS: Step(State.DRAINING_ASKED),
        Event.COMMAND: Step(State.RUNNING_ASKED, _ASKED),
        Event.GRACE_OVER: Step(State.RUNNING),
        Event.TIMED_OUT: Step(State.RUNNING_ASKED),
        Event.STOP: Step(State.STOPPING_ASKED, (Action.TERMINATE,)),
        Event.EXITED_CLEAN: Step(State.ENDED, _REVIVED),
        Event.EXITED_BADLY: Step(State.ENDED, _DIED),
        Event.FOUND_ENDED: Step(State.ENDED, _REVIVED),
    },
    State.DRAINING: {
        Event.CHECKED_IN: Step(State.DRAINING),
        Event.DRAINS: Step(State.DRAINING),
        Event.COMMAND: Step(State.DRAINING_ASKED, (Action.REFRESH,)),
        Event.GRACE_OVER: Step(State.DRAINING),
        Event.TIMED_OUT: Step(State.DRAINING),
        Event.STOP: Step(State.STOPPING, (Action.TERMINATE,)),
        Event.EXITED_CLEAN: Step(State.ENDED, _OVER),
        Event.EXITED_BADLY: Step(State.ENDED, _DIED),
        Event.FOUND_ENDED: Step(State.MISSED, _FOUND),
    },
    State.DRAINING_ASKED: {
        Event.CHECKED_IN: Step(State.DRAINING_ASKED),
        Event.DRAINS: Step(State.DRAINING_ASKED),
        Event.COMMAND: Step(State.DRAINING_ASKED, (Action.REFRESH,)),
        Event.GRACE_OVER: Step(State.DRAINING_ASKED),
        Event.TIMED_OUT: Step(State.DRAINING_ASKED),
        Event.STOP: Step(State.STOPPING_ASKED, (Action.TERMINATE,)),
        Event.EXITED_CLEAN: Step(State.ENDED, _REVIVED),
        Event.EXITED_BADLY: Step(State.ENDED, _DIED),
        Event.FOUND_ENDED: Step(State.ENDED, _REVIVED),
    },
    State.STOPPING: {
        Event.CHECKED_IN: Step(State.STOPPING),
        Event.DRAINS: Step(State.STOPPING),
        Event.COMMAND: Step(State.STOPPING_ASKED),
        Event.GRACE_OVER: Step(State.STOPPING),
        Event.TIMED_OUT: Step(State.STOPPING, (Action.KILL,)),
        Event.STOP: Step(State.STOPPING),
        Event.EXITED_CLEAN: Step(State.ENDED, _OVER),
        Event.EXITED_BADLY: Step(State.ENDED, _OVER),
        Event.FOUND_ENDED: Step(State.ENDED, _OVER),
    },
    State.STOPPING_ASKED: {
        Event.CHECKED_IN: Step(State.STOPPING_ASKED),
        Event.DRAINS: Step(State.STOPPING_ASKED),
        Event.COMMAND: Step(State.STOPPING_ASKED),
        Event.GRACE_OVER: Step(State.STOPPING_ASKED),
        Event.TIMED_OUT: Step(State.STOPPING_ASKED, (Action.KILL,)),
        Event.STOP: Step(State.STOPPING_ASKED),
        Event.EXITED_CLEAN: Step(State.ENDED, _REVIVED),
        Event.EXITED_BADLY: Step(State.ENDED, _REVIVED),
        Event.FOUND_ENDED: Step(State.ENDED, _REVIVED),
    },
    State.MISSED: {
        Event.CHECKED_IN: Step(State.MISSED),
        Event.DRAINS: Step(State.MISSED),
        Event.COMMAND: Step(State.ENDED, (Action.FORGET,)),
        Event.GRACE_OVER: Step(State.MISSED),
        Event.TIMED_OUT: Step(State.ENDED, (Action.FORGET, Action.TELL_USER)),
        Event.STOP: Step(State.ENDED, (Action.FORGET, Action.TELL_USER)),
        Event.EXITED_CLEAN: Step(State.MISSED),
        Event.EXITED_BADLY: Step(State.MISSED),
        Event.FOUND_ENDED: Step(State.MISSED, (Action.AWAIT_COMMAND,)),
    },
    State.ENDED: {
        Event.CHECKED_IN: Step(State.ENDED),
        Event.DRAINS: Step(State.ENDED),
        Event.COMMAND: Step(State.ENDED),
        Event.GRACE_OVER: Step(State.ENDED),
        Event.TIMED_OUT: Step(State.ENDED),
        Event.STOP: Step(State.ENDED),
        Event.EXITED_CLEAN: Step(State.ENDED),
        Event.EXITED_BADLY: Step(State.ENDED),
        Event.FOUND_ENDED: Step(State.ENDED),
    },
}

UNSEEN = frozenset({State.STARTING, State.STARTING_ASKED})
"""Before the first heartbeat."""
ASKED_TO_STOP = frozenset({State.STOPPING, State.STOPPING_ASKED})
"""By the manager; it is killed when it does not."""
OVER = frozenset({State.MISSED, State.ENDED})
"""Its process has ended, as its manager knows."""
