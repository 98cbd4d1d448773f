"""Places in turn: nobody has more than a share, nobody waits for ever, nothing is lost when who waits goes away."""

from __future__ import annotations

import asyncio
import random

import pytest

from mep.monitor.stages.fair_queue import MOST_WAITING, FairQueue, TooManyWait, WaitedTooLong

LONG = 60.0


async def hold(queue: FairQueue, key: str, release: asyncio.Event, patience: float = LONG) -> None:
    async with queue.place(key, asyncio.get_running_loop().time() + patience):
        await release.wait()


def test_who_has_many_holds_up_nobody() -> None:
    async def story() -> None:
        queue, release = FairQueue(4, 2), asyncio.Event()
        many = [asyncio.create_task(hold(queue, "many", release)) for _ in range(200)]
        await asyncio.sleep(0)
        assert queue.taken("many") == 2
        other = asyncio.Event()
        other.set()
        await hold(queue, "other", other, patience=0)
        release.set()
        await asyncio.gather(*many)
        assert queue._free == 4 and not queue._waiting and not queue._taken

    asyncio.run(story())


def test_only_so_many_of_one_key_wait() -> None:
    async def story() -> None:
        queue, release = FairQueue(4, 2), asyncio.Event()
        many = [asyncio.create_task(hold(queue, "many", release)) for _ in range(MOST_WAITING + 2)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyWait):
            await hold(queue, "many", release)
        others = [asyncio.create_task(hold(queue, "other", release)) for _ in range(3)]
        await asyncio.sleep(0)
        assert queue.taken("other") == 2
        many[-1].cancel()
        await asyncio.wait(many[-1:])
        many.append(asyncio.create_task(hold(queue, "many", release)))
        await asyncio.sleep(0)
        assert not many[-1].done()
        release.set()
        await asyncio.gather(*many, *others, return_exceptions=True)
        assert queue._free == 4 and not queue._waiting and not queue._taken

    asyncio.run(story())


def test_the_turn_goes_round() -> None:
    async def story() -> None:
        queue, release, order = FairQueue(1, 1), asyncio.Event(), list[str]()

        async def one(key: str) -> None:
            async with queue.place(key, asyncio.get_running_loop().time() + LONG):
                order.append(key)

        first = asyncio.create_task(hold(queue, "first", release))
        await asyncio.sleep(0)
        others = [asyncio.create_task(one(key)) for key in "aaabbc"]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, *others)
        assert "".join(order) == "abcaba"

    asyncio.run(story())


def test_patience_has_an_end() -> None:
    async def story() -> None:
        queue, release = FairQueue(1, 1), asyncio.Event()
        first = asyncio.create_task(hold(queue, "a", release))
        await asyncio.sleep(0)
        for key in "ab":
            with pytest.raises(WaitedTooLong):
                await hold(queue, key, release, patience=0.01)
        release.set()
        await first
        await hold(queue, "b", release, patience=0)
        assert not queue._waiting

    asyncio.run(story())


def test_at_its_own_risk_it_holds_up_nobody_else() -> None:
    async def story() -> None:
        queue, release = FairQueue(1, 2), asyncio.Event()

        async def hang() -> None:
            async with queue.place("hangs", asyncio.get_running_loop().time() + LONG) as place:
                place.at_own_risk()
                await release.wait()

        hanging = [asyncio.create_task(hang()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert queue.taken("hangs") == 2
        other = asyncio.Event()
        other.set()
        await hold(queue, "other", other, patience=0)
        with pytest.raises(WaitedTooLong):
            await hold(queue, "hangs", other, patience=0.01)
        release.set()
        await asyncio.gather(*hanging)
        assert queue._free == 1 and not queue._waiting and not queue._taken

    asyncio.run(story())


def test_what_is_left_of_one_counts_for_its_key_until_it_has_ended() -> None:
    async def story() -> None:
        queue = FairQueue(1, 1)
        ended = asyncio.get_running_loop().create_future()
        async with queue.place("hangs", 0) as place:
            place.until(ended)
        assert queue.taken("hangs") == 1 and queue.lingering == {"hangs": 1} and queue._free == 1
        with pytest.raises(WaitedTooLong):
            await hold(queue, "hangs", asyncio.Event(), patience=0.01)
        ended.set_result(None)
        await asyncio.sleep(0)
        assert queue._free == 1 and not queue._taken and not queue.lingering
        async with queue.place("hangs", 0) as place:
            place.until(ended)
        assert queue._free == 1 and not queue._taken and not queue.lingering

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(20))
def test_no_place_is_lost(seed: int) -> None:
    """Callers come, wait, give up and are cancelled in any order; in the end all places are free."""

    async def story() -> None:
        chance, queue = random.Random(seed), FairQueue(3, 2)
        most = 0

        async def one(key: str) -> None:
            nonlocal most
            async with queue.place(key, asyncio.get_running_loop().time() + chance.choice([0, 0.001, LONG])) as place:
                if chance.random() < 0.2:
                    place.at_own_risk()
                most = max(most, queue.taken(key))
                assert queue._free >= 0
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)

        tasks = list[asyncio.Task[None]]()
        for _ in range(200):
            tasks.append(asyncio.create_task(one(chance.choice("abcd"))))
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= 2
        assert queue._free == 3 and not queue._waiting and not queue._taken

    asyncio.run(story())
