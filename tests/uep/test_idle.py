from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uep.idle import History, IdleLimits, beat

Beats = list[tuple[int, int]]


def first_stop(limits: IdleLimits, beats: Beats) -> tuple[int, str] | None:
    """The beat (from 1) at which to stop, and why."""
    history = History()
    for n, (received, forwarded) in enumerate(beats, 1):
        history, verdict = beat(limits, history, received, forwarded)
        if verdict.stop is not None:
            return n, "soft" if "soft" in verdict.stop else "hard"
    return None


@pytest.mark.parametrize(
    ("limits", "beats", "stop"),
    [
        (IdleLimits(0, 3), [(0, 0)] * 100, None),  # 0: never
        (IdleLimits(2, 9), [(1, 1)] * 9, (3, "soft")),  # movement at the first, then two without
        (IdleLimits(2, 9), [(1, 0)] * 30, (11, "hard")),  # a task that never ends: more than 9 without movement
        (IdleLimits(2, 9), [(0, 0)] * 30, (10, "hard")),  # no task ever came
        (IdleLimits(2, 1), [(0, 0)] * 30, (4, "hard")),  # hard is at least soft + 1
        (IdleLimits(3, 9), [(1, 1), (1, 1), (1, 1), (2, 1), (2, 2), (2, 2), (2, 2), (2, 2)], (8, "soft")),
        (IdleLimits(1, 9), [(0, 5), (0, 5)], (2, "soft")),  # only results of an earlier endpoint
        (IdleLimits(2, 9), [(1, 0), (1, 1), (1, 1), (1, 1)], (4, "soft")),
    ],
)
def test_table(limits: IdleLimits, beats: Beats, stop: tuple[int, str] | None) -> None:
    assert first_stop(limits, beats) == stop


def test_beats_left_count_down_to_the_stop() -> None:
    history, seen = History(), []
    for _ in range(5):
        history, verdict = beat(IdleLimits(4, 9), history, 1, 1)
        seen.append(verdict.beats_left)
    assert seen == [None, 3, 2, 1, None]


def test_possibly_idle_is_announced_after_the_soft_limit() -> None:
    history, seen = History(), []
    for _ in range(6):
        history, verdict = beat(IdleLimits(2, 4), history, 0, 0)
        seen.append((verdict.beats_left, verdict.stop is not None))
    assert seen[:5] == [(None, False), (None, False), (2, False), (1, False), (None, True)]


moves = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=40)


@given(st.integers(0, 5), st.integers(0, 8), moves)
def test_agrees_with_the_rules_word_for_word(soft: int, hard: int, steps: Beats) -> None:
    received = forwarded = 0
    beats = []
    for r, f in steps:
        received, forwarded = received + r, forwarded + f
        beats.append((received, forwarded))
    limits = IdleLimits(soft, hard)
    assert first_stop(limits, beats) == _by_the_rules(soft, max(soft + 1, hard), beats)


def _by_the_rules(soft: int, hard: int, beats: Beats) -> tuple[int, str] | None:
    last, soft_count, hard_count = (0, 0), 0, 0
    for n, now in enumerate(beats, 1):
        moved, last = now != last, now
        if not soft:
            continue
        if moved:
            soft_count = hard_count = 0
            continue
        hard_count += 1
        if any(now) and now[1] >= now[0]:
            soft_count += 1
            if soft_count >= soft:
                return n, "soft"
        elif hard_count > hard:
            return n, "hard"
    return None


def test_one_that_was_started_again_waits_for_no_task() -> None:
    """What its command came for, an earlier one may have run: two days are too long to wait for nothing."""
    history, stops = History(), []
    for _ in range(3):
        history, verdict = beat(IdleLimits(3, 5760), history, 0, 0, revived=True)
        stops.append(verdict.stop)
    assert stops[:2] == [None, None] and "idle_heartbeats_soft" in str(stops[2])
