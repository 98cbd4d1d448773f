"""The helper that the lab and the tests wait with."""

from __future__ import annotations

import asyncio

import pytest

from lab.waiting import aiountil, until


def test_the_first_true_answer_comes_back() -> None:
    answers = iter([0, "", [], "it", "later"])
    assert until(lambda: next(answers), "an answer") == "it"
    assert next(answers) == "later", "asked no more"


def test_the_text_names_what_did_not_come() -> None:
    with pytest.raises(AssertionError, match="in vain for Godot"):
        until(lambda: False, "Godot", 0.0)
    with pytest.raises(LookupError, match="in vain for Godot"):
        until(lambda: False, "Godot", 0.0, failed=LookupError)


def test_an_event_loop_goes_on_meanwhile() -> None:
    async def work() -> str:
        answers: list[str] = []
        asyncio.get_running_loop().call_soon(answers.append, "it")
        return (await aiountil(lambda: answers, "an answer"))[0]

    assert asyncio.run(work()) == "it"
    with pytest.raises(AssertionError, match="in vain for Godot"):
        asyncio.run(aiountil(lambda: None, "Godot", 0.0))
