"""How many run and are started: what is counted, when, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mep.monitor.stages.quota import PLACES, SHARE, WINDOW, Clock, Quota
from mep.profile.sections.limits import Limits
from mep.request.refusal import Refusal, Refused

ALICE, BOB = 54321, 54322
NOON = 12 * 3600.0
LONG = 20.0


class Time:
    """A clock that is set by hand. It began at noon."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = Clock(lambda: self.now, lambda: NOON + self.now)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def quota(time: Time) -> Quota:
    return Quota(time.clock)


def start(quota: Quota, uid: int, limits: Limits, running: dict[str, int] | None = None, name: str = "new") -> None:
    """A start that does not wait."""
    asyncio.run(begin(quota, name, uid, limits, running))


async def begin(
    quota: Quota,
    name: str,
    uid: int,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    running: dict[str, int] | None = None,
    patience: float = 0.0,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """A start that waits for its turn for `patience` seconds, and takes as long as `meanwhile` does."""
    deadline = asyncio.get_running_loop().time() + patience
    with quota.start(name, uid, limits, running or {}, deadline) as turn:
        async with turn():
            if meanwhile is not None:
                await meanwhile()


def refusal(quota: Quota, uid: int, limits: Limits, running: dict[str, int] | None = None) -> Refusal:
    with pytest.raises(Refused) as caught:
        start(quota, uid, limits, running)
    assert caught.value.refusal.stage == "admission"
    return caught.value.refusal


def ueps(**numbers: int) -> dict[str, int]:
    """So many running user endpoints of each."""
    uids = {"alice": ALICE, "bob": BOB}
    return {f"{who}-{i}": uids[who] for who, number in numbers.items() for i in range(number)}


@pytest.mark.parametrize(
    ("limits", "running", "key"),
    [
        (Limits(), ueps(alice=5000, bob=5000), None),
        (Limits(max_ueps=3), ueps(alice=1, bob=1), None),
        (Limits(max_ueps=3), ueps(alice=1, bob=2), "max_ueps"),
        (Limits(max_ueps=3), ueps(bob=4), "max_ueps"),  # the limit was lowered since
        (Limits(max_ueps_per_user=2), ueps(alice=1, bob=9), None),
        (Limits(max_ueps_per_user=2), ueps(alice=2), "max_ueps_per_user"),
        (Limits(max_ueps=2, max_ueps_per_user=2), ueps(alice=2), "max_ueps_per_user"),  # what the user can change
        (Limits(max_ueps=9, max_ueps_per_user=1, starts_per_minute_per_user=1), ueps(bob=8), None),
    ],
)
def test_what_runs_is_counted(quota: Quota, limits: Limits, running: dict[str, int], key: str | None) -> None:
    if key is None:
        start(quota, ALICE, limits, running)
        return
    refused = refusal(quota, ALICE, limits, running)
    assert f"limits.{key} " in refused.reason_for_admin
    assert str(getattr(limits, key)) in refused.reason_for_user
    assert str(BOB) not in refused.reason_for_user
    assert "config.yaml" not in refused.reason_for_user


def test_starts_under_way_count_with_what_runs(quota: Quota) -> None:
    async def others() -> None:
        for uid, limits, running in (
            (ALICE, Limits(max_ueps_per_user=1), {}),
            (BOB, Limits(max_ueps=1), {}),
            (BOB, Limits(max_ueps=2), ueps(bob=1)),
        ):
            with pytest.raises(Refused, match="max_ueps"):
                await begin(quota, "new", uid, limits, running)
        await begin(quota, "new", BOB, Limits(max_ueps=2, max_ueps_per_user=1))

    asyncio.run(begin(quota, "a", ALICE, meanwhile=others))
    start(quota, ALICE, Limits(max_ueps_per_user=1))


def test_one_that_runs_already_while_its_start_is_under_way_is_counted_once(quota: Quota) -> None:
    async def another() -> None:
        await begin(quota, "b", ALICE, Limits(max_ueps=2, max_ueps_per_user=2), {"a": ALICE})

    asyncio.run(begin(quota, "a", ALICE, meanwhile=another))


def test_a_start_that_fails_is_under_way_no_longer_but_has_been_one(quota: Quota) -> None:
    once = Limits(max_ueps=1, starts_per_minute_per_user=2)

    async def fails() -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(begin(quota, "a", ALICE, once, meanwhile=fails))
    assert "starts_per_minute_per_user" in refusal(quota, ALICE, once).reason_for_admin


def test_the_rate_is_of_each_user_and_the_refusal_says_from_when_on(quota: Quota, time: Time) -> None:
    limits = Limits(starts_per_minute_per_user=2)
    start(quota, ALICE, limits)
    time.now = 10.25
    start(quota, ALICE, limits)
    refused = refusal(quota, ALICE, limits)
    assert "2 times a minute" in refused.reason_for_user
    assert "12:01:00 UTC" in refused.reason_for_user
    assert "12:01:00 UTC" in refused.reason_for_admin
    assert str(ALICE) in refused.reason_for_admin
    start(quota, BOB, limits)
    time.now = 59.5
    refusal(quota, ALICE, limits)
    time.now = 60.0
    start(quota, ALICE, limits)
    assert "12:01:11 UTC" in refusal(quota, ALICE, limits).reason_for_user, "rounded up"


def test_a_limit_that_is_lowered_counts_what_has_been(quota: Quota, time: Time) -> None:
    for second in range(5):
        time.now = second
        start(quota, ALICE, Limits())
    assert "12:01:03 UTC" in refusal(quota, ALICE, Limits(starts_per_minute_per_user=2)).reason_for_user
    time.now = 63.0
    start(quota, ALICE, Limits(starts_per_minute_per_user=2))


def test_the_next_day_is_told_by_its_time_of_day() -> None:
    assert Clock(lambda: 0.0, lambda: 24 * 3600.0 - 1).utc_in(0.5) == "00:00:00 UTC"


def test_what_is_remembered_is_a_minute(quota: Quota, time: Time) -> None:
    for n in range(5000):
        time.now = n * 1.0
        start(quota, n, Limits(starts_per_minute_per_user=1))
    assert sum(map(len, quota._starts.values())) <= WINDOW
    assert not quota._under_way


steps = st.lists(st.tuples(st.integers(0, 200).map(lambda n: n / 4), st.sampled_from([ALICE, BOB])), max_size=60)


@given(steps, st.integers(1, 5))
def test_never_more_than_the_rate_in_any_minute_and_never_refused_below_it(
    waits: list[tuple[float, int]], limit: int
) -> None:
    time = Time()
    quota = Quota(time.clock)
    made: list[tuple[float, int]] = []
    for wait, uid in waits:
        time.now += wait
        recent = sum(who == uid and at > time.now - WINDOW for at, who in made)
        refused = True
        with contextlib.suppress(Refused):
            start(quota, uid, Limits(starts_per_minute_per_user=limit))
            made.append((time.now, uid))
            refused = False
        assert refused == (recent >= limit)


@given(steps, st.integers(1, 5))
def test_at_the_time_that_is_told_a_start_is_possible(waits: list[tuple[float, int]], limit: int) -> None:
    time = Time()
    quota = Quota(time.clock)
    limits = Limits(starts_per_minute_per_user=limit)
    for wait, uid in waits:
        time.now += wait
        try:
            start(quota, uid, limits)
        except Refused as e:
            told = re.search(r"from (\d+):(\d+):(\d+) UTC", e.refusal.reason_for_user)
            assert told is not None
            hours, minutes, seconds = map(int, told.groups())
            until = hours * 3600.0 + minutes * 60 + seconds - NOON
            assert time.now < until < time.now + WINDOW + 1
            time.now = until
            start(quota, uid, limits)


def test_only_so_many_starts_of_one_account_are_under_way_and_others_wait() -> None:
    """Without any limit in the configuration. Who waits is started when a place is free; another account at once."""
    quota = Quota()

    async def story() -> None:
        under_way = asyncio.Event()

        async def long() -> None:
            await under_way.wait()

        starts = [asyncio.create_task(begin(quota, f"uep.{n}", ALICE, meanwhile=long)) for n in range(SHARE)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match=f"{SHARE} starts under way, which take long"):
            await begin(quota, "one more", ALICE, patience=0.05)
        await begin(quota, "another's", BOB)
        waiting = asyncio.create_task(begin(quota, "one more", ALICE, patience=LONG))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        under_way.set()
        await asyncio.gather(waiting, *starts)
        assert not quota._under_way

    asyncio.run(story())


def test_all_places_may_be_taken_and_the_turn_goes_round() -> None:
    """Of two who wait, one with many starts and one with one, the one gets a place before the other gets a second."""
    quota, order = Quota(), list[str]()

    async def story() -> None:
        under_way = asyncio.Event()

        async def long() -> None:
            await under_way.wait()

        def done(name: str) -> Callable[[], Awaitable[None]]:
            async def note() -> None:
                order.append(name)

            return note

        first = [asyncio.create_task(begin(quota, f"uep.{n}", n, meanwhile=long)) for n in range(PLACES)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="starts of others are under way") as caught:
            await begin(quota, "late", BOB, patience=0.05)
        assert "busy" in caught.value.refusal.reason_for_user
        many = [
            asyncio.create_task(begin(quota, f"a{n}", ALICE, patience=LONG, meanwhile=done(f"a{n}"))) for n in range(9)
        ]
        await asyncio.sleep(0)
        one = asyncio.create_task(begin(quota, "b", BOB, patience=LONG, meanwhile=done("b")))
        await asyncio.sleep(0)
        under_way.set()
        await asyncio.gather(one, *many, *first)

    asyncio.run(story())
    assert order.index("b") <= 2
    assert [name for name in order if name != "b"] == [f"a{n}" for n in range(9)]


def test_the_rate_waits_in_order(time: Time) -> None:
    """Starts that would be too many a minute wait until they are not, and are refused when that is too late."""
    quota, order = Quota(time.clock), list[int]()
    limits = Limits(starts_per_minute_per_user=2)
    for _ in range(2):
        start(quota, ALICE, limits)
    time.now = WINDOW - 0.2

    async def story() -> None:
        async def one(number: int) -> None:
            await begin(quota, f"uep.{number}", ALICE, limits, patience=LONG)
            order.append(number)

        waiting = [asyncio.create_task(one(number)) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="starts_per_minute_per_user"):
            await begin(quota, "uep.9", ALICE, limits, patience=LONG)
        await begin(quota, "another's", BOB, limits)
        assert not order
        await asyncio.gather(*waiting)

    asyncio.run(story())
    assert order == [0, 1]


def test_who_waits_may_be_cancelled(time: Time) -> None:
    quota, limits = Quota(time.clock), Limits(starts_per_minute_per_user=1)
    start(quota, ALICE, limits)

    async def story() -> None:
        for _ in range(3):
            waiting = asyncio.create_task(begin(quota, "uep.1", ALICE, limits, patience=WINDOW + 1))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(story())
    assert not quota._under_way
    time.now = WINDOW
    start(quota, ALICE, limits)
