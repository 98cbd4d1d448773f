"""Documents, identity set and requester become a decision; programs are wanted by their numbers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from identity.decision import Decision
from identity.runner import MapperError
from mep.mapper.mapping import IdentityMapper, mapped
from mep.profile.profile import OWNER
from mep.reader import registered
from mep.request.mapping_program import ProgramFailed
from tests.identity.samples import ALICE, BOB, answer, entry, expression, external, record, text

ENDPOINT = BOB


class Programs:
    """Stands for the monitor. says: what each program answers, by its number; one that is not among them fails."""

    def __init__(self, **says: str) -> None:
        self._says = {int(number.strip("_")): said for number, said in says.items()}
        self.asked: list[int] = []

    async def run(self, number: int, question: bytes) -> bytes:
        self.asked.append(number)
        assert json.loads(question)["identities"][0]["id"] == ALICE
        if number not in self._says:
            raise ProgramFailed("it ended with status 3")
        return self._says[number].encode()


def decided(documents: str, programs: Programs | None = None, identity_set: str | None = None) -> Decision:
    asked = json.dumps([record()]) if identity_set is None else identity_set
    mapper = IdentityMapper(documents, "mapping.json", ENDPOINT)
    return asyncio.run(mapper.decide(asked, ALICE, None if programs is None else programs.run))


@pytest.mark.parametrize(
    ("records", "account"),
    [
        ([record(id=ALICE.upper(), sub=ALICE.upper())], "me"),
        ([{"id": ALICE, "username": "a@example.org", "status": "used"}], "me"),
        ([record(id=BOB, sub=ALICE)], None),
        ([record(id=BOB, sub=[ALICE])], None),
        ([record(status="unused")], None),
    ],
)
def test_an_ordinary_users_endpoint_goes_by_the_id_alone(
    tmp_path: Path, records: list[dict[str, object]], account: str | None
) -> None:
    registered.remember_owner(tmp_path, [ALICE], "me")
    assert decided((tmp_path / OWNER).read_text(), identity_set=json.dumps(records)).account == account


def test_the_name_comes_with_the_rule_that_decided() -> None:
    found = mapped(decided(text(expression())))
    assert found is not None
    assert (found.username, found.identity) == ("alice", ALICE)
    assert found.rule.startswith("mapping.json:1, document 1, mapping 1: ")
    assert found.candidates == [[{ALICE: ["alice"]}]]


def test_nobody() -> None:
    decision = decided(text(expression({"match": "(bob)"})))
    assert mapped(decision) is None
    assert "no mapping gives an account" in str(decision.refusal)


@pytest.mark.parametrize("identity_set", ["", "[", "null", '"x"', "[" * 100_000, "NaN"])
def test_what_is_no_identity_set_is_nobody(identity_set: str) -> None:
    decision = decided(text(expression()), identity_set=identity_set)
    assert mapped(decision) is None
    assert "not a list" in str(decision.refusal)


def test_programs_are_wanted_by_their_numbers() -> None:
    """Those of the documents that name one, in their order, whatever else is between them."""
    programs = Programs(_0="", _1=answer(entry("carol")))
    documents = text(external("/bin/a"), expression({"match": "(bob)"}), external("/bin/a", "x", run_as="daemon"))
    found = mapped(decided(documents, programs))
    assert found is not None and found.username == "carol"
    assert programs.asked == [0, 1]


def test_a_program_that_fails_or_may_not_be_asked_leaves_it_open() -> None:
    documents = text(external("/bin/a"), expression())
    with pytest.raises(MapperError, match="status 3"):
        decided(documents, Programs())
    with pytest.raises(MapperError, match="cannot be asked"):
        decided(documents)
