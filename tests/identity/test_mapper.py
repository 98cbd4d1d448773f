"""Decisions over several documents and identities."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from identity.mapper import Mapper
from identity.runner import MapperError

from .samples import ALICE, BOB, decide, expression, external, record, text

NET = {"match": r"(.*)@example\.net"}
BOTH = [record(ALICE, "alice@example.org"), record(BOB, "bob@example.net")]


def mapper(*documents: object) -> Mapper:
    return Mapper.parse(text(*documents), "mapping.json")


def test_decision() -> None:
    content = text(expression(NET, {}))
    decision = decide(Mapper.parse(content, "mapping.json"), [record()])
    assert (decision.account, decision.identity, decision.refusal) == ("alice", ALICE, None)
    assert str(decision.rule) == r"mapping.json:1, document 1, mapping 2: '(.*)@example\\.org' -> '{0}'"
    assert decision.candidates == [[{ALICE: ["alice"]}]]
    assert Mapper.parse(content).digest == hashlib.sha256(content.encode()).hexdigest()


def test_amap() -> None:
    assert asyncio.run(mapper(expression()).amap([record()], requester=ALICE)).account == "alice"


def test_first_rule_wins_for_each_identity() -> None:
    decision = decide(mapper(expression({"output": "first"}, {"output": "second"}), expression()), [record()])
    assert (decision.account, decision.candidates) == ("first", [[{ALICE: ["first"]}], []])


def test_nothing_maps() -> None:
    decision = decide(mapper(expression()), [record(username="x@evil")])
    assert (decision.account, decision.identity, decision.rule, decision.candidates) == (None, None, None, [[]])
    assert decision.refusal
    assert decide(mapper(expression()), []).refusal


@pytest.mark.parametrize(("requester", "account"), [(ALICE, "alice"), (BOB, "bob"), (BOB.upper(), "bob")])
def test_row_19_requester_decides(requester: str, account: str) -> None:
    decision = decide(mapper(expression({}, NET)), BOTH, requester=requester)
    assert (decision.account, decision.refusal) == (account, None)


@pytest.mark.parametrize("requester", [None, "cccccccc-0003-4000-8000-00000000000c"])
def test_row_19_ambiguous(requester: str | None) -> None:
    decision = decide(mapper(expression({}, NET)), BOTH, requester=requester)
    assert decision.account is None
    assert "ambiguous" in (decision.refusal or "")
    assert decision.candidates == [[{ALICE: ["alice"]}, {BOB: ["bob"]}]]


def test_row_19_agreement() -> None:
    shared = mapper(expression({"output": "shared"}, {**NET, "output": "shared"}))
    assert decide(shared, BOTH).account == "shared"
    assert decide(shared, BOTH, requester="cccccccc-0003-4000-8000-00000000000c").account == "shared"


def test_requester_must_be_an_id() -> None:
    assert decide(mapper(expression()), [record()], requester="alice").account is None


def test_row_15_source_cannot_be_built() -> None:
    decision = decide(mapper(expression({"source": "{email}", "output": "wrong"}, {})), [record(email=None)])
    assert decision.account == "alice"
    assert decision.passed_over[0].identity == ALICE
    assert "mapping 1" in decision.passed_over[0].where


@pytest.mark.parametrize("output", ["{nick}", "root", "{username}", "Alice", ""])
def test_row_15_no_fall_through_after_a_match(output: str) -> None:
    decision = decide(mapper(expression({"output": output}, {"output": "broad"}), expression()), [record()])
    assert (decision.account, decision.candidates) == (None, [[], []])
    assert decision.passed_over[0].reason in (decision.refusal or "")


def test_row_15_others_go_on() -> None:
    others = mapper(expression({"output": "{nick}"}, NET))
    assert decide(others, BOTH).account == "bob"


def test_row_27_losing_group_is_an_error_for_that_identity() -> None:
    losing = mapper(expression({"match": r"(.*)@example\.org|(.*)@example\.net"}))
    assert decide(losing, [BOTH[0]]).account == "alice"
    assert decide(losing, [BOTH[1]]).account is None


def test_row_09_captured_root() -> None:
    assert decide(mapper(expression()), [record(username="root@example.org")]).account is None


def test_row_04_newline_refuses_the_request() -> None:
    assert "control" in (decide(mapper(expression()), [record(username="alice@example.org\n")]).refusal or "")


def test_row_12_long_source() -> None:
    long = mapper(expression({"source": "{name}{name}{username}", "match": "(.*)", "output": "x"}, {}))
    assert decide(long, [record(name="x" * 600)]).account is None


def test_row_18_status() -> None:
    assert decide(mapper(expression()), [record(status="unused")]).account is None


def test_row_16_failing_program_ends_the_request(program: Callable[..., Path]) -> None:
    failing = mapper(external(program("exit 1")), expression())
    with pytest.raises(MapperError):
        decide(failing, [record()])


def test_documents_after_the_decision_are_not_considered(program: Callable[..., Path]) -> None:
    both = mapper(expression(), external(program("exit 1")))
    assert decide(both, [record()]).account == "alice"
    assert decide(both, BOTH, requester=ALICE).account == "alice"
    with pytest.raises(MapperError):
        decide(both, BOTH, requester=BOB)


def test_program_is_asked_about_the_undecided_only(program: Callable[..., Path]) -> None:
    body = f"""input=$(cat); case $input in *{ALICE}*) exit 1;; esac
    echo '{{"result": [{{"id": "{BOB}", "output": "bob"}}]}}'"""
    decision = decide(mapper(expression(), external(program(body))), BOTH, requester=BOB)
    assert (decision.account, decision.candidates) == ("bob", [[{ALICE: ["alice"]}], [{BOB: ["bob"]}]])


def test_the_same_question_has_the_same_answer() -> None:
    both = mapper(expression(), expression({"match": "(.*)@example\\.net"}))
    first = decide(both, BOTH, requester=BOB)
    assert decide(both, BOTH, requester=BOB) == first
    assert decide(both, BOTH, requester=ALICE) != first
    changed = [{**record, "status": "unused"} for record in BOTH]
    assert decide(both, changed, requester=BOB).account is None
    assert decide(both, [{**BOTH[0], "extra": 1}]).account == decide(both, [{**BOTH[0], "extra": True}]).account
    for number in range(300):
        assert decide(both, [{**BOTH[0], "extra": number}]).account == "alice"


def test_mappings_with_different_sources_keep_their_order() -> None:
    mappings = [
        {"source": "{username}", "match": "nobody", "output": "x"},
        {"source": "{id}", "match": "(.*)", "output": "a"},
        {"source": "{username}", "match": "(.*)", "output": "b"},
    ]
    assert decide(mapper(expression(*mappings)), [record()]).account == "a"
    assert decide(mapper(expression(*mappings[::-1])), [record()]).account == "b"
