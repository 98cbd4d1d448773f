"""Decisions over several documents and identities."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

import identity

from .conftest import ALICE, BOB, expression, external, record, text

NET = {"match": r"(.*)@example\.net"}
BOTH = [record(ALICE, "alice@example.org"), record(BOB, "bob@example.net")]


def mapper(*documents: object) -> identity.Mapper:
    return identity.parse(text(*documents), "mapping.json")


def test_decision() -> None:
    content = text(expression(NET, {}))
    decision = identity.parse(content, "mapping.json").map([record()])
    assert (decision.account, decision.identity, decision.refusal) == ("alice", ALICE, None)
    assert str(decision.rule) == r"mapping.json:1, document 1, mapping 2: '(.*)@example\\.org' -> '{0}'"
    assert decision.candidates == [[{ALICE: ["alice"]}]]
    assert identity.parse(content).digest == hashlib.sha256(content.encode()).hexdigest()


def test_amap() -> None:
    assert asyncio.run(mapper(expression()).amap([record()], requester=ALICE)).account == "alice"


def test_first_rule_wins_for_each_identity() -> None:
    decision = mapper(expression({"output": "first"}, {"output": "second"}), expression()).map([record()])
    assert (decision.account, decision.candidates) == ("first", [[{ALICE: ["first"]}], []])


def test_nothing_maps() -> None:
    decision = mapper(expression()).map([record(username="x@evil")])
    assert (decision.account, decision.identity, decision.rule, decision.candidates) == (None, None, None, [[]])
    assert decision.refusal
    assert mapper(expression()).map([]).refusal


@pytest.mark.parametrize(("requester", "account"), [(ALICE, "alice"), (BOB, "bob"), (BOB.upper(), "bob")])
def test_row_19_requester_decides(requester: str, account: str) -> None:
    decision = mapper(expression({}, NET)).map(BOTH, requester=requester)
    assert (decision.account, decision.refusal) == (account, None)


@pytest.mark.parametrize("requester", [None, "cccccccc-0003-4000-8000-00000000000c"])
def test_row_19_ambiguous(requester: str | None) -> None:
    decision = mapper(expression({}, NET)).map(BOTH, requester=requester)
    assert decision.account is None
    assert "ambiguous" in (decision.refusal or "")
    assert decision.candidates == [[{ALICE: ["alice"]}, {BOB: ["bob"]}]]


def test_row_19_agreement() -> None:
    shared = mapper(expression({"output": "shared"}, {**NET, "output": "shared"}))
    assert shared.map(BOTH).account == "shared"
    assert shared.map(BOTH, requester="cccccccc-0003-4000-8000-00000000000c").account == "shared"


def test_requester_must_be_an_id() -> None:
    assert mapper(expression()).map([record()], requester="alice").account is None


def test_row_15_source_cannot_be_built() -> None:
    decision = mapper(expression({"source": "{email}", "output": "wrong"}, {})).map([record(email=None)])
    assert decision.account == "alice"
    assert decision.passed_over[0].identity == ALICE
    assert "mapping 1" in decision.passed_over[0].where


@pytest.mark.parametrize("output", ["{nick}", "root", "{username}", "Alice", ""])
def test_row_15_no_fall_through_after_a_match(output: str) -> None:
    decision = mapper(expression({"output": output}, {"output": "broad"}), expression()).map([record()])
    assert (decision.account, decision.candidates) == (None, [[], []])
    assert decision.passed_over[0].reason in (decision.refusal or "")


def test_row_15_others_go_on() -> None:
    others = mapper(expression({"output": "{nick}"}, NET))
    assert others.map(BOTH).account == "bob"


def test_row_27_losing_group_is_an_error_for_that_identity() -> None:
    losing = mapper(expression({"match": r"(.*)@example\.org|(.*)@example\.net"}))
    assert losing.map([BOTH[0]]).account == "alice"
    assert losing.map([BOTH[1]]).account is None


def test_row_09_captured_root() -> None:
    assert mapper(expression()).map([record(username="root@example.org")]).account is None


def test_row_04_newline_refuses_the_request() -> None:
    assert "control" in (mapper(expression()).map([record(username="alice@example.org\n")]).refusal or "")


def test_row_12_long_source() -> None:
    long = mapper(expression({"source": "{name}{name}{username}", "match": "(.*)", "output": "x"}, {}))
    assert long.map([record(name="x" * 600)]).account is None


def test_row_18_status() -> None:
    assert mapper(expression()).map([record(status="unused")]).account is None


def test_row_16_failing_program_ends_the_request(program: Callable[..., Path]) -> None:
    failing = mapper(external(program("exit 1")), expression())
    with pytest.raises(identity.MapperError):
        failing.map([record()])


def test_documents_after_the_decision_are_not_considered(program: Callable[..., Path]) -> None:
    both = mapper(expression(), external(program("exit 1")))
    assert both.map([record()]).account == "alice"
    assert both.map(BOTH, requester=ALICE).account == "alice"
    with pytest.raises(identity.MapperError):
        both.map(BOTH, requester=BOB)


def test_program_is_asked_about_the_undecided_only(program: Callable[..., Path]) -> None:
    body = f"""input=$(cat); case $input in *{ALICE}*) exit 1;; esac
    echo '{{"result": [{{"id": "{BOB}", "output": "bob"}}]}}'"""
    decision = mapper(expression(), external(program(body))).map(BOTH, requester=BOB)
    assert (decision.account, decision.candidates) == ("bob", [[{ALICE: ["alice"]}], [{BOB: ["bob"]}]])


def test_the_plain_function_needs_no_loop_unless_a_program_is_asked(program: Callable[..., Path]) -> None:
    async def inside() -> None:
        assert identity.parse(text(expression())).map([record()]).account == "alice"
        with pytest.raises(RuntimeError):
            identity.parse(text(external(program("")))).map([record()])

    asyncio.run(inside())


def test_the_same_question_has_the_same_answer() -> None:
    both = mapper(expression(), expression({"match": "(.*)@example\\.net"}))
    first = both.map(BOTH, requester=BOB)
    assert both.map(BOTH, requester=BOB) == first
    assert both.map(BOTH, requester=ALICE) != first
    changed = [{**record, "status": "unused"} for record in BOTH]
    assert both.map(changed, requester=BOB).account is None
    assert both.map([{**BOTH[0], "extra": 1}]).account == both.map([{**BOTH[0], "extra": True}]).account
    for number in range(300):
        assert both.map([{**BOTH[0], "extra": number}]).account == "alice"


def test_mappings_with_different_sources_keep_their_order() -> None:
    mappings = [
        {"source": "{username}", "match": "nobody", "output": "x"},
        {"source": "{id}", "match": "(.*)", "output": "a"},
        {"source": "{username}", "match": "(.*)", "output": "b"},
    ]
    assert mapper(expression(*mappings)).map([record()]).account == "a"
    assert mapper(expression(*mappings[::-1])).map([record()]).account == "b"
