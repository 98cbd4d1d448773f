"""What a mapping program is asked, which answers are accepted, and what follows from them. No program runs here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from identity.decision import Decision
from identity.jsontext import DocumentError
from identity.mapper import POSIX_CONNECTOR, Mapper
from identity.runner import MapperError

from .samples import ALICE, BOB, answer, entry, expression, external, record, text


class Said:
    """A runner that gives the same answer each time, and keeps what it was asked."""

    def __init__(self, output: str | bytes | MapperError) -> None:
        self._output = output.encode() if isinstance(output, str) else output
        self.asked: list[tuple[list[str], Any, str | None]] = []

    async def __call__(self, argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
        self.asked.append((list(argv), json.loads(stdin), account))
        assert stdin.isascii()
        if isinstance(self._output, MapperError):
            raise self._output
        return self._output


def mapper(*documents: object) -> Mapper:
    return Mapper.parse(text(*(documents or (external("/site/map"),))), "m.json")


def ask(said: Said, of: Mapper | None = None, records: object = None, **more: Any) -> Decision:
    return asyncio.run((of or mapper()).amap(records or [record()], gateway_id=BOB, run=said, **more))


def test_answer() -> None:
    decision = ask(Said(answer(entry())))
    assert (decision.account, decision.candidates) == ("alice", [[{ALICE: ["alice"]}]])
    assert str(decision.rule).startswith("m.json:1, document 1: program ")


def test_what_the_program_gets() -> None:
    said = Said("")
    records = [record(name="\xe9")]
    assert ask(said, mapper(external("/site/map", "x y", run_as="nobody")), records).account is None
    argv = ["/site/map", "x y", "-c", POSIX_CONNECTOR, "-s", BOB, "-a"]
    assert said.asked == [(argv, {"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": records}, "nobody")]


@pytest.mark.parametrize("output", ["", answer(), answer(DATA_TYPE="identity_mapping_output#1.0.0"), f" {answer()}\n"])
def test_no_mapping(output: str) -> None:
    assert ask(Said(output)).account is None


@pytest.mark.parametrize(
    "output",
    [
        "\n", "alice", "[]", "null", "{}", answer(DATA_TYPE=None), answer(DATA_TYPE="x"), answer(more=1),
        '{"result": {}}', answer("x"), answer({"id": ALICE}), answer({"output": "alice"}),
        answer({**entry(), "x": 1}), answer(entry(5)),
        answer(entry(None)), answer(entry(identity_id=BOB)), answer(entry(identity_id="x")), answer() + "x",
        answer(entry(), entry()), answer(entry(identity_id=ALICE.replace("-", ""))),
        answer(entry(identity_id=f"urn:uuid:{ALICE}")),
        '{"result": [], "result": []}', '{"result": [{"id": NaN, "output": "x"}]}', "[" * 5000, "\ufeff" + answer(),
    ],
)  # fmt: skip
def test_row_28_broken_answers(output: str) -> None:
    with pytest.raises(MapperError):
        ask(Said(output))


def test_row_28_bytes_that_are_not_utf8() -> None:
    with pytest.raises(MapperError, match="UTF-8"):
        ask(Said(b"\xff"))


def test_row_28_ids_in_upper_case() -> None:
    assert ask(Said(answer(entry(identity_id=ALICE.upper())))).account == "alice"


@pytest.mark.parametrize("name", ["root", "", "a b", "../x", "1000", "a\n", "-x"])
def test_row_28_hostile_names(name: str) -> None:
    decision = ask(Said(answer(entry(name))))
    assert decision.account is None
    assert decision.passed_over[0].identity == ALICE


@pytest.mark.parametrize("bad", ["", "x", None])
def test_row_35_ids_are_checked(bad: str) -> None:
    for ids in ({"gateway_id": bad}, {"connector_id": bad}):
        with pytest.raises(MapperError, match="not a UUID"):
            asyncio.run(mapper().amap([record()], run=Said(answer(entry())), **ids))


@pytest.mark.parametrize("may_fail", [False, True])
def test_without_a_runner_no_program_is_passed_over(may_fail: bool) -> None:
    both = mapper(expression(), external("/site/map", may_fail=may_fail), expression({"match": ".*", "output": "x"}))
    assert asyncio.run(both.amap([record()])).account == "alice"
    with pytest.raises(MapperError, match=r"document 2: program '/site/map' cannot be asked: nothing .* runs programs"):
        asyncio.run(both.amap([record(username="al@example.net")]))


def test_the_mapper_tells_its_programs() -> None:
    documents = mapper(expression(), external("/site/map", "-x"), external("/site/other", run_as="nobody")).programs
    assert [(document.command, document.run_as) for document in documents] == [
        (("/site/map", "-x"), None),
        (("/site/other",), "nobody"),
    ]
    assert mapper(expression()).programs == ()


def test_a_document_may_ask_for_fall_through() -> None:
    failing = external("/site/map", may_fail=True)
    decision = ask(Said(MapperError("ended with status 3")), mapper(failing, expression()))
    assert decision.account == "alice"
    assert "ended with status 3" in decision.passed_over[0].reason
    for may_fail in ({"may_fail": False}, {}):
        with pytest.raises(MapperError):
            ask(Said(MapperError("x")), mapper(external("/site/map", **may_fail), expression()))


@pytest.mark.parametrize("value", ["5", True, -1, 1e9])
def test_a_cache_time_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(DocumentError, match="number of seconds"):
        mapper(external("/site/map", cache_seconds=value))


@pytest.mark.parametrize(("seconds", "calls"), [(0, 3), (60, 1), (1e-9, 3)])
def test_answers_are_kept_only_when_the_document_says_so(seconds: float, calls: int) -> None:
    said, asked = Said(answer(entry())), mapper(external("/site/map", cache_seconds=seconds))
    for _ in range(3):
        assert ask(said, asked).account == "alice"
    assert len(said.asked) == calls
    ask(said, asked, [record(email="another@example.org")])
    assert len(said.asked) == calls + 1, "the whole identity set is the question"


def test_a_failure_is_not_kept() -> None:
    asked = mapper(external("/site/map", cache_seconds=60))
    with pytest.raises(MapperError):
        ask(Said("nothing"), asked)
    assert ask(Said(answer(entry())), asked).account == "alice"


def test_two_programs_have_answers_of_their_own() -> None:
    one, other = external("/site/map", cache_seconds=60), external("/site/map", cache_seconds=60, run_as="nobody")
    said, both = Said(answer()), mapper(one, other)
    for _ in range(2):
        ask(said, both)
    assert [account for _, _, account in said.asked] == [None, "nobody"]
