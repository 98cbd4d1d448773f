"""Who is held back, for how long, and how it ends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mep.monitor.stages.breaker import FIRST_PAUSE, FREE_FAILURES, LONGEST_PAUSE, MEMORY, Breaker, pause_after
from mep.monitor.stages.quota import Clock
from mep.request.refusal import Refusal, Refused

ALICE, BOB = 54321, 54322
NOON = 12 * 3600.0


class Site:
    """A breaker, and a clock that is set by hand. It began at noon."""

    def __init__(self) -> None:
        self.now = 0.0
        self.breaker = Breaker(Clock(lambda: self.now, lambda: NOON + self.now))

    def fail(self, times: int = 1, uid: int = ALICE, reason: str = "exit status 1") -> None:
        for _ in range(times):
            self.breaker.died_early(uid, reason)

    def held_back(self, uid: int = ALICE) -> Refusal | None:
        """The refusal of a start; None means that it was let through."""
        try:
            self.breaker.check(uid)
        except Refused as e:
            return e.refusal
        return None

    def seconds_told(self, refusal: Refusal) -> float:
        told = re.search(r"from (\d+):(\d+):(\d+) UTC on", refusal.reason_for_user)
        assert told is not None
        hours, minutes, seconds = map(int, told.groups())
        return (hours * 3600 + minutes * 60 + seconds - NOON) % 86400 - self.now


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_first_failures_are_free(site: Site) -> None:
    for _ in range(FREE_FAILURES):
        site.fail()
        assert site.held_back() is None
    site.fail()
    assert site.held_back() is not None
    assert site.held_back(BOB) is None


def test_the_refusal_says_until_when_and_why(site: Site) -> None:
    site.fail(3)
    site.now = 0.5
    site.fail(reason="signal 9 (SIGKILL)")
    refusal = site.held_back()
    assert refusal is not None
    assert refusal.stage == "admission"
    for text in (refusal.reason_for_admin, refusal.reason_for_user):
        assert "12:00:11 UTC" in text, "rounded up"
        assert "signal 9 (SIGKILL)" in text
        assert "exit status 1" not in text
    assert str(ALICE) in refusal.reason_for_admin
    assert str(ALICE) not in refusal.reason_for_user


def test_a_sentence_as_the_reason_keeps_one_full_stop(site: Site) -> None:
    site.fail(4, reason="Your home folder cannot be entered.")
    refusal = site.held_back()
    assert refusal is not None
    assert "with: Your home folder cannot be entered. Look" in refusal.reason_for_user


def test_after_a_pause_one_start_is_let_through(site: Site) -> None:
    site.fail(4)
    site.now = FIRST_PAUSE
    assert site.held_back() is None
    assert site.held_back() is not None, "one"
    site.fail()
    refusal = site.held_back()
    assert refusal is not None
    assert site.seconds_told(refusal) == 2 * FIRST_PAUSE


def test_pauses_double_up_to_the_longest(site: Site) -> None:
    site.fail(3)
    pauses = []
    for _ in range(12):
        site.fail()
        refusal = site.held_back()
        assert refusal is not None
        pauses.append(site.seconds_told(refusal))
        site.now += pauses[-1]
        assert site.held_back() is None
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]


def test_a_start_of_which_nothing_is_told_costs_one_pause(site: Site) -> None:
    site.fail(4)
    for _ in range(5):
        site.now += FIRST_PAUSE
        assert site.held_back() is None
        assert site.held_back() is not None


def test_a_start_that_was_not_made_is_given_back(site: Site) -> None:
    site.fail(4)
    site.breaker.give_back(ALICE)
    assert site.held_back() is not None, "none had been let through"
    site.now = FIRST_PAUSE
    assert site.held_back() is None
    site.breaker.give_back(ALICE)
    assert site.held_back() is None
    assert site.held_back() is not None
    site.fail()
    site.breaker.give_back(ALICE)
    assert site.held_back() is not None, "a later failure stands"
    site.breaker.give_back(BOB)
    assert site.held_back(BOB) is None


def test_several_that_die_at_once_make_one_pause(site: Site) -> None:
    site.fail(20)
    refusal = site.held_back()
    assert refusal is not None
    assert site.seconds_told(refusal) == FIRST_PAUSE


def test_work_ends_it(site: Site) -> None:
    site.fail(4)
    site.breaker.did_work(BOB)
    assert site.held_back() is not None
    site.breaker.did_work(ALICE)
    assert site.held_back() is None
    site.fail()
    assert site.held_back() is None, "as many as are free"


def test_a_forged_result_forgives_no_more_than_half(site: Site) -> None:
    """Of a task of a user endpoint that runs, while others of the same user keep dying."""
    failures = 10
    for number in range(1, failures + 1):
        site.fail()
        site.now += pause_after(number)
        site.held_back()
    site.breaker.did_work(ALICE)
    assert site.held_back() is None, "whose cause has been mended does not wait"
    site.fail()
    refusal = site.held_back()
    assert refusal is not None
    assert site.seconds_told(refusal) == pause_after(failures // 2 + 1) > FIRST_PAUSE


def test_results_forgive_all_in_the_end(site: Site) -> None:
    site.fail(4)
    for _ in range(3):
        site.breaker.did_work(ALICE)
    assert not site.breaker._records
    site.fail(FREE_FAILURES)
    assert site.held_back() is None


def test_old_failures_are_forgotten(site: Site) -> None:
    site.fail(FREE_FAILURES)
    site.now = MEMORY - 1
    site.fail(uid=BOB)
    site.now = MEMORY
    site.fail()
    assert site.held_back() is None
    assert set(site.breaker._records) == {ALICE, BOB}
    site.now = 2 * MEMORY
    assert site.held_back() is None
    assert not site.breaker._records


def test_memory_is_that_of_recent_failures(site: Site) -> None:
    for uid in range(1000, 6000):
        site.now += MEMORY / 100
        site.fail(uid=uid)
        site.fail(uid=ALICE)
    assert len(site.breaker._records) == 101
    assert ALICE in site.breaker._records


@given(st.integers(0, 10**6))
def test_pauses_are_within_bounds_and_never_shrink(failures: int) -> None:
    assert 0 <= pause_after(failures) <= pause_after(failures + 1) <= LONGEST_PAUSE
    assert (pause_after(failures) == 0) == (failures <= FREE_FAILURES)


waits = st.one_of(st.integers(0, 400).map(lambda n: n / 4), st.integers(0, int(MEMORY)).map(float))
events = st.lists(
    st.tuples(
        waits, st.sampled_from(["try", "fail", "fail", "fail", "work", "give back"]), st.sampled_from([ALICE, BOB])
    ),
    max_size=80,
)


def play(site: Site, story: list[tuple[float, str, int]]) -> None:
    for wait, event, uid in story:
        site.now += wait
        if event == "try":
            site.held_back(uid)
        elif event == "fail":
            site.fail(uid=uid)
        elif event == "work":
            site.breaker.did_work(uid)
        else:
            site.breaker.give_back(uid)


@given(events)
def test_nobody_is_held_back_without_more_than_the_free_failures_half_of_which_each_work_forgives(
    story: list[tuple[float, str, int]],
) -> None:
    site = Site()
    failures = {ALICE: 0, BOB: 0}
    for step in story:
        play(site, [step])
        if step[1] == "fail":
            failures[step[2]] += 1
        elif step[1] == "work":
            failures[step[2]] //= 2
        for uid, number in failures.items():
            assert number > FREE_FAILURES or site.held_back(uid) is None


@given(events)
def test_whoever_is_held_back_is_let_through_at_the_time_told_and_then_only_once(
    story: list[tuple[float, str, int]],
) -> None:
    site = Site()
    play(site, story)
    refusal = site.held_back()
    if refusal is None:
        return
    wait = site.seconds_told(refusal)
    assert 0 < wait <= LONGEST_PAUSE + 1
    site.now += wait
    assert site.held_back() is None
    assert site.held_back() is not None or not site.breaker._records.get(ALICE), "one, unless all was forgotten"


@given(events)
def test_work_lets_everything_through_in_the_end(story: list[tuple[float, str, int]]) -> None:
    site = Site()
    play(site, story)
    for _ in range(len(story).bit_length()):
        site.breaker.did_work(ALICE)
    assert all(site.held_back() is None for _ in range(5))


@given(events)
def test_nothing_is_held_back_for_ever(story: list[tuple[float, str, int]]) -> None:
    site = Site()
    play(site, story)
    site.now += MEMORY
    assert all(site.held_back() is None for _ in range(5))
    assert not site.breaker._records


@given(st.lists(st.integers(0, 40).map(lambda n: n / 8), min_size=1, max_size=40))
def test_pauses_do_not_shrink_while_failures_go_on(extra: list[float]) -> None:
    site, last = Site(), 0.0
    site.fail(FREE_FAILURES)
    for late in extra:
        site.fail()
        pause = site.breaker._records[ALICE].held_until - site.now
        assert pause >= last
        last = pause
        site.now += pause + late
        assert site.held_back() is None
