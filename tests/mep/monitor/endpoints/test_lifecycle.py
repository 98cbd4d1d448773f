"""The table of states and events: complete, without a dead end, and nobody who has asked waits in vain."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mep.monitor.endpoints import lifecycle
from mep.monitor.endpoints.lifecycle import TABLE, Action, Event, State

ASKED = {state for state in State if state.name.endswith("_ASKED")}
ENDS = (Event.EXITED_CLEAN, Event.EXITED_BADLY, Event.FOUND_ENDED)
OTHERS = [event for event in Event if event not in ENDS]
RUNS = [state for state in State if state not in lifecycle.OVER]
ANSWERS = {Action.REVIVE, Action.TELL_USER}


def test_the_table_has_every_pair() -> None:
    assert set(TABLE) == set(State)
    assert all(set(row) == set(Event) for row in TABLE.values())


@pytest.mark.parametrize("state", RUNS)
def test_an_end_of_the_process_is_reported_once(state: State) -> None:
    for event in Event:
        step = TABLE[state][event]
        assert (step.state in lifecycle.OVER) == (event in ENDS)
        assert step.actions.count(Action.REPORT) == (event in ENDS)


@pytest.mark.parametrize("state", State)
def test_every_state_has_an_end(state: State) -> None:
    reached = {state}
    while new := {TABLE[at][event].state for at in reached for event in Event} - reached:
        reached |= new
    assert State.ENDED in reached


@pytest.mark.parametrize("state", RUNS)
@pytest.mark.parametrize("event", ENDS)
def test_who_has_asked_gets_an_answer(state: State, event: Event) -> None:
    step = TABLE[state][event]
    answers = ANSWERS & set(step.actions)
    assert len(answers) <= 1
    if state in ASKED:
        assert answers
    elif state is State.STOPPING:
        assert step.state is State.ENDED and not answers, "the manager wanted it to end"
    elif event is Event.EXITED_CLEAN:
        assert bool(answers) == (state is State.STARTING), "it was idle, unless it never began"
    elif event is Event.EXITED_BADLY:
        assert answers == {Action.TELL_USER}
    else:
        assert step.state is State.MISSED, "its user may be waiting, or not"


def test_what_was_missed_is_told_unless_a_command_comes() -> None:
    row = TABLE[State.MISSED]
    assert {event for event in Event if row[event].state is State.ENDED} == {Event.COMMAND, Event.TIMED_OUT, Event.STOP}
    assert {event for event in Event if Action.TELL_USER in row[event].actions} == {Event.TIMED_OUT, Event.STOP}


@pytest.mark.parametrize(("state", "event"), [*itertools.product([State.DRAINING_ASKED, State.STOPPING_ASKED], Event)])
def test_what_takes_no_more_tasks_does_not_forget_who_has_asked(state: State, event: Event) -> None:
    assert TABLE[state][event].state in ASKED | {State.ENDED}


def test_a_command_is_remembered_for_as_long_as_it_may_be_served() -> None:
    for state in (State.STARTING_ASKED, State.RUNNING_ASKED):
        assert TABLE[state][Event.GRACE_OVER].state not in ASKED
    for state in RUNS:
        step = TABLE[state][Event.COMMAND]
        assert step.state in ASKED
        if TABLE[step.state][Event.GRACE_OVER].state not in ASKED:
            assert Action.REMEMBER in step.actions, "else its time is never over"


STORIES = [
    ("idle", [Event.CHECKED_IN, Event.DRAINS, Event.EXITED_CLEAN], None),
    ("asked while idle", [Event.CHECKED_IN, Event.COMMAND, Event.DRAINS, Event.EXITED_CLEAN], Action.REVIVE),
    (
        "asked long before it was idle",
        [Event.CHECKED_IN, Event.COMMAND, Event.GRACE_OVER, Event.DRAINS, Event.EXITED_CLEAN],
        None,
    ),
    (
        "ends for longer than the grace period",
        [Event.CHECKED_IN, Event.DRAINS, Event.COMMAND, Event.GRACE_OVER, Event.EXITED_CLEAN],
        Action.REVIVE,
    ),
    ("never checks in", [Event.TIMED_OUT, Event.EXITED_BADLY], Action.TELL_USER),
    ("ends before its first heartbeat", [Event.EXITED_CLEAN], Action.TELL_USER),
    ("is stopped", [Event.CHECKED_IN, Event.STOP, Event.DRAINS, Event.EXITED_CLEAN], None),
    ("is stopped and killed", [Event.CHECKED_IN, Event.STOP, Event.EXITED_BADLY], None),
    ("asked, stopped and killed", [Event.COMMAND, Event.STOP, Event.GRACE_OVER, Event.EXITED_BADLY], Action.REVIVE),
    ("missed, nobody comes", [Event.CHECKED_IN, Event.FOUND_ENDED, Event.TIMED_OUT], Action.TELL_USER),
    ("missed, somebody comes", [Event.CHECKED_IN, Event.FOUND_ENDED, Event.FOUND_ENDED, Event.COMMAND], None),
]


@pytest.mark.parametrize(("events", "answer"), [story[1:] for story in STORIES], ids=[story[0] for story in STORIES])
def test_what_its_user_is_told(events: list[Event], answer: Action | None) -> None:
    state, done = State.STARTING, []
    for event in events:
        step = TABLE[state][event]
        state = step.state
        done += step.actions
    assert state is State.ENDED
    assert [action for action in done if action in ANSWERS] == ([answer] if answer else [])
    assert done.count(Action.REPORT) == 1


class Life(RuleBasedStateMachine):
    """One user endpoint, any events in any order; beside it a model that knows only what matters to people."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.STARTING
        self.done: list[Action] = []
        self.runs = True
        self.asked = False
        self.committed = False
        """It takes no more tasks: who has asked or asks now is not served by it."""
        self.checked_in = False

    @rule(event=st.sampled_from(OTHERS))
    def anything_happens(self, event: Event) -> None:
        self.asked = self.asked_after(event)
        self.checked_in |= event is Event.CHECKED_IN
        self.committed |= event is Event.STOP or (event is Event.DRAINS and self.checked_in)
        self.happens(event)

    @rule(event=st.sampled_from(OTHERS), also=st.sampled_from(OTHERS))
    def two_things_happen(self, event: Event, also: Event) -> None:
        """Only so that lives are longer: their end is one of the rules."""
        self.anything_happens(event)
        self.anything_happens(also)

    @precondition(lambda self: self.runs)
    @rule(event=st.sampled_from(ENDS))
    def it_ends(self, event: Event) -> None:
        self.runs = False
        before = len(self.done)
        self.happens(event)
        told = ANSWERS & set(self.done[before:])
        assert bool(told) or not self.asked, "who has asked waits in vain"
        if self.asked and event is Event.EXITED_CLEAN:
            assert told == {Action.REVIVE}

    @precondition(lambda self: not self.runs)
    @rule(event=st.sampled_from(ENDS))
    def its_end_is_seen_again(self, event: Event) -> None:
        """By the next manager, or because a report came twice."""
        self.happens(event)

    def asked_after(self, event: Event) -> bool:
        if not self.runs:
            return self.asked
        return event is Event.COMMAND or (self.asked and (event is not Event.GRACE_OVER or self.committed))

    def happens(self, event: Event) -> None:
        step = TABLE[self.state][event]
        if self.state is State.ENDED:
            assert step == lifecycle.Step(State.ENDED), "it comes back"
        self.state = step.state
        self.done += step.actions

    @invariant()
    def the_state_says_what_is_so(self) -> None:
        assert self.runs == (self.state not in lifecycle.OVER)
        if self.runs:
            assert self.asked == (self.state in ASKED)

    @invariant()
    def nothing_is_done_twice(self) -> None:
        for action in (Action.REPORT, Action.FORGET, Action.TERMINATE):
            assert self.done.count(action) <= 1
        assert sum(self.done.count(action) for action in ANSWERS) <= 1
        assert (Action.REPORT in self.done) == (not self.runs)
        assert (Action.FORGET in self.done) == (self.state is State.ENDED)

    def teardown(self) -> None:
        """Whatever has happened, a stop and the end of its process are the end."""
        self.happens(Event.STOP)
        if self.runs:
            self.it_ends(Event.EXITED_BADLY)
        assert self.state is State.ENDED


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=500, stateful_step_count=30, deadline=None)
