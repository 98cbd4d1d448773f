"""One run for a question at a time: who asks it again while one is under way shares the one after it, with all others.

So a requester with many requests has one mapping program under way, and no answer is older than its question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Q = TypeVar("Q", bound=Hashable)
A = TypeVar("A")


class SharedRuns(Generic[Q, A]):
    """Answers questions by `run`. Belongs to the event loop; keeps nothing of what has been answered."""

    def __init__(self, run: Callable[[Q], Awaitable[A]]) -> None:
        self._run = run
        self._next: dict[Q, asyncio.Task[A]] = {}
        self._under_way: dict[Q, asyncio.Task[A]] = {}
        self._askers: dict[asyncio.Task[A], int] = {}

    async def ask(self, question: Q) -> A:
        """The answer of a run that begins now, or after the one that is under way. Raises what `run` does.

        A run that nobody waits for any more is cancelled.
        """
        run = self._next.get(question)
        if run is None:
            run = asyncio.ensure_future(self._answer(question, self._under_way.get(question)))
            self._next[question] = run
        self._askers[run] = self._askers.get(run, 0) + 1
        try:
            return await asyncio.shield(run)
        finally:
            self._askers[run] -= 1
            if not self._askers[run]:
                del self._askers[run]
                self._begun(question, run)
                run.cancel()

    async def _answer(self, question: Q, before: asyncio.Task[A] | None) -> A:
        if before is not None:
            await asyncio.wait({before})
        run: asyncio.Task[A] | None = asyncio.current_task()
        assert run is not None
        self._begun(question, run)
        self._under_way[question] = run
        try:
            return await self._run(question)
        finally:
            del self._under_way[question]

    def _begun(self, question: Q, run: asyncio.Task[A]) -> None:
        """Nobody else shares it from now on."""
        if self._next.get(question) is run:
            del self._next[question]
