"""One run for a question at a time, and never an answer that is older than the question."""

from __future__ import annotations

import asyncio
import random

import pytest

from mep.monitor.stages.shared_runs import SharedRuns


class Program:
    """Notes its runs; each goes on until it is let go."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.fails = False

    async def run(self, question: str) -> int:
        self.runs.append(question)
        number = len(self.runs)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise ValueError(number)
        return number


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_asks_while_a_run_is_under_way_shares_the_next_one() -> None:
    async def story() -> None:
        program = Program()
        shared = SharedRuns(program.run)
        first = asyncio.create_task(shared.ask("a"))
        await turns()
        many = [asyncio.create_task(shared.ask("a")) for _ in range(300)]
        other = asyncio.create_task(shared.ask("b"))
        await turns()
        assert program.runs == ["a", "b"]
        program.go_on.set()
        assert await first == 1 and await other == 2
        assert await asyncio.gather(*many) == [3] * 300
        assert not (shared._next or shared._under_way or shared._askers)

    asyncio.run(story())


def test_all_who_share_a_run_are_told_that_it_failed() -> None:
    async def story() -> None:
        program = Program()
        program.fails = True
        program.go_on.set()
        shared = SharedRuns(program.run)
        told = await asyncio.gather(*(shared.ask("a") for _ in range(3)), return_exceptions=True)
        assert [str(each) for each in told] == ["1"] * 3
        program.fails = False
        assert await shared.ask("a") == 2

    asyncio.run(story())


def test_a_run_goes_on_for_those_who_still_wait_and_no_longer() -> None:
    async def story() -> None:
        program = Program()
        shared = SharedRuns(program.run)
        asked = [asyncio.create_task(shared.ask("a")) for _ in range(2)]
        await turns()
        asked[0].cancel()
        await turns()
        assert program.cancelled == 0
        asked[1].cancel()
        late = asyncio.create_task(shared.ask("a"))
        await turns()
        assert program.cancelled == 1
        program.go_on.set()
        assert await late == 2
        with pytest.raises(asyncio.CancelledError):
            await asked[1]
        assert not (shared._next or shared._under_way or shared._askers)

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(20))
def test_whoever_goes_and_stays_has_an_answer(seed: int) -> None:
    async def story() -> None:
        chance, running = random.Random(seed), set[str]()

        async def run(question: str) -> str:
            assert question not in running
            running.add(question)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                running.remove(question)
            return question

        shared = SharedRuns(run)
        tasks: list[tuple[str, asyncio.Task[str]]] = []
        for _ in range(200):
            question = chance.choice("abc")
            tasks.append((question, asyncio.create_task(shared.ask(question))))
            if chance.random() < 0.4:
                chance.choice(tasks)[1].cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        await turns()
        assert all(task.cancelled() or task.result() == question for question, task in tasks)
        assert not (shared._next or shared._under_way or shared._askers)

    asyncio.run(story())
