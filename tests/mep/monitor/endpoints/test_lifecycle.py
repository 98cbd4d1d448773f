from __future__ import annotations

import itertools

from mep.monitor.endpoints import lifecycle
from mep.monitor.endpoints.lifecycle import Action, Event, State


def test_the_table_has_every_pair() -> None:
    assert set(lifecycle.TABLE) == set(itertools.product(State, Event))


def test_an_end_is_told_to_the_user_exactly_when_nobody_asked_for_it() -> None:
    for (state, event), step in lifecycle.TABLE.items():
        told = Action.TELL_USER in step.actions
        assert told == (event is Event.EXITED_BADLY and state is not State.STOPPING)
        assert (Action.FORGET in step.actions) == (event in (Event.EXITED_CLEAN, Event.EXITED_BADLY))
