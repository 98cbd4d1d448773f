"""The dangerous cases of identity mapping that concern identity sets and their records.

One test for each row of the table in the specification that we were given. A row says what the official library does,
and what a stricter engine should do; the latter is asserted here, from outside, as a request meets it. The details of
each part are tested beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from identity.account_name import problem
from identity.mapper import Mapper

from .asking import CAROL, Write, ask, hinted, identify, name, run, start
from .samples import ALICE, BOB, decide, expression, record, text


def test_row_12_long_values() -> None:
    sets: list[list[dict[str, object]]] = [
        [record(name="x" * 1025)],
        [{**record(), "x" * 1025: 1}],
        [record(x=["x" * 1000] * 20)],
        [record(x=[1] * 300)],
        [record(f"aaaaaaaa-0001-4000-8000-{number:012x}") for number in range(65)],
    ]
    for identity_set in sets:
        assert ask({}, *identity_set).account is None
    assert ask({}, *sets[-1][:64]).account == "alice"
    assert name({"output": "{0}" * 12, "match": "(.*)@x"}, username="{0}{0}@x") is None
    assert problem("x" * 32) is None
    assert name({}, username=f"{'x' * 33}@example.org") is None


@pytest.mark.parametrize("value", [None, 5, True, {}, {"identities": [record()]}, "", "alice", (record(),)])
def test_row_14_set_that_is_no_list(value: object) -> None:
    decision = decide(Mapper.parse(text(expression({"match": "(.*)", "output": "x"}))), value)
    assert (decision.account, "not a list" in str(decision.refusal)) == (None, True)
    for odd in (None, "x", ["a"]):
        assert ask({}, odd).account is None


@pytest.mark.parametrize("value", [None, 5, 0, False, ["a"], {"a": "b"}, "missing"])
def test_row_15_fields_that_are_no_text(value: object) -> None:
    fields: dict[str, Any] = {} if value == "missing" else {"nick": value}
    broad: dict[str, object] = {"output": "broad"}
    assert name([{"source": "{nick}", "match": ".*", "output": "x"}, broad], **fields) == "broad"
    assert name([{"output": "{nick}"}, broad], **fields) is None
    later = Mapper.parse(text(expression({"output": "{nick}"}), expression(broad)))
    assert decide(later, [record(**fields)]).account is None
    linked = record(BOB, "bob@example.org", nick="b")
    assert ask({"output": "{nick}"}, record(**fields), linked).account == "b"


@pytest.mark.parametrize(
    "odd", [None, "", 7, ["a"], "alice", ALICE.replace("-", ""), f"{{{ALICE}}}", f"urn:uuid:{ALICE}"]
)
def test_row_17_ids(odd: object) -> None:
    decision = ask({}, {**record(), "id": odd}, record(BOB, "bob@example.org"))
    assert (decision.account, decision.passed_over[0].identity) == ("bob", "record 1")
    assert ask({}, {"sub": ALICE, "username": "alice@example.org", "status": "used"}).account is None
    by_id: dict[str, object] = {"source": "{id}", "match": ALICE, "literal": True, "output": "alice"}
    assert ask(by_id, record(ALICE.upper()), requester=ALICE).identity == ALICE


@pytest.mark.parametrize("status", ["unused", "closed", "Used", "used ", "", None, 1, True, ["used"], "absent"])
def test_row_18_status(status: object, program: Write, tmp_path: Path) -> None:
    one = {**record(), "status": status}
    if status == "absent":
        del one["status"]
    assert ask({}, one).account is None
    assert ask({}, one, requester=ALICE).account is None
    path = program(f"cat > {tmp_path}/seen; echo '{{\"result\": []}}'")
    assert run(path, one, record(BOB, status="private")).account is None
    assert [each["id"] for each in json.loads((tmp_path / "seen").read_text())["identities"]] == [BOB]


def test_row_19_two_accounts(root: None) -> None:
    both = (record(), record(BOB, "bob@example.org"))
    for requester, found in ((ALICE, "alice"), (BOB, "bob")):
        decision = ask({}, *both, requester=requester)
        assert (decision.account, decision.identity) == (found, requester)
        assert "mapping 1" in str(decision.rule)
    for nobody in (None, CAROL):
        decision = ask({}, *both, requester=nobody)
        assert decision.account is None
        assert "ambiguous" in str(decision.refusal)
    assert identify(start(*both), text(expression())).rule


def test_row_20_duplicate_ids() -> None:
    for other in (record(username="bob@example.org"), record(ALICE.upper(), status="unused"), record(x=1)):
        assert "differing" in str(ask({}, record(), other).refusal)
    assert ask({}, record(), record(ALICE)).account == "alice"


def test_row_21_fields_that_may_be_made_up() -> None:
    provider = "dddddddd-0004-4000-8000-00000000000d"
    for field in ("email", "name", "organization"):
        assert "owner" in hinted(source=f"{{{field}}}")
        assert "owner" in hinted(output=f"{{{field}}}")
        pinned = {"source": f"{{identity_provider}}:{{{field}}}", "match": rf"{provider}:(.*)@example\.org"}
        assert hinted(**pinned) == ""
    for field in ("username", "id"):
        assert hinted(source=f"{{{field}}}") == ""


@pytest.mark.parametrize("match", [r".*:(.*)@example\.org", r"(.*)(:.*)@example\.org", r".*a:(.*)@example\.org"])
def test_row_21_a_provider_that_may_be_any(match: str) -> None:
    assert "owner" in hinted(source="{identity_provider}:{email}", match=match)
