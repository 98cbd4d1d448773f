"""Ours beside the official library, on thousands of random documents and identity sets.

Every difference must be one that docs/identity.md promises: a step of `Strict` (`strict_model`) that departs from the
library names a row of the table "What is stricter". Steps look at the document and the record, never at the answers. So
`checker` compares three things for each mapping and identity: what the library says, what we say, and what we should
say. Where no step departs, all three are the same. Then the whole sets: the account that Globus Compute would take, and
ours.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from globus_identity_mapping.loader import load_mappers
from globus_identity_mapping.mappers.expression import ExpressionIdentityMapping
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import nfa, pattern
from identity.jsontext import DocumentError
from identity.mapper import POSIX_CONNECTOR, ZERO_UUID, Mapper
from identity.pattern_syntax import PatternError
from identity.runner import MapperError

from .checker import Checker, compute_pick, document, library_load, limited
from .generator import IDS, Generator
from .samples import ALICE, BOB, decide, expression, record
from .strict_model import COMMAND, EXPLOSIVE, LINKED, NAME, PROGRAM, RULES, SHAPE, TWICE

DOCUMENTS = 5000
SAFE_PATTERNS = 4000


@pytest.fixture(autouse=True, scope="module")
def _entry_points() -> Iterator[None]:
    """The library reads the metadata of all packages for each document that it loads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", cache(importlib.metadata.entry_points))
        yield


# Programs, and what takes too long


USUAL = expression({"match": r"(.*)@example\.org", "output": "{0}"})
RECORDS = [record(ALICE), record(BOB, "bob@elsewhere.org")]


def answering(*pairs: tuple[str, str]) -> str:
    result = json.dumps({"result": [{"id": identity_id, "output": name} for identity_id, name in pairs]})
    return f"echo '{result}'"


PROGRAMS: list[tuple[list[object], str | None, str, str]] = [
    (["/bin/sh", "-c", "exit 0"], None, "alice", "alice"),
    (["/bin/sh", "-c", answering((ALICE, "al"))], None, "al", "al"),
    (["/bin/sh", "-c", answering((BOB, "al"), (ALICE, "al"))], None, "al", "al"),
    (["/bin/sh", "-c", answering((BOB, "bob"), (ALICE, "al"))], LINKED, "bob", "None"),
    (["/bin/sh", "-c", answering((ALICE, "Al"))], NAME, "Al", "None"),
    (["/bin/sh", "-c", answering((ALICE, "al"), (ALICE, "bob"))], TWICE, "al", "MapperError"),
    (["/bin/sh", "-c", answering((IDS[5], "al"))], TWICE, "alice", "MapperError"),
    (["/bin/sh", "-c", "exit 1"], PROGRAM, "alice", "MapperError"),
    (["/bin/sh", "-c", "kill -9 $$"], PROGRAM, "alice", "MapperError"),
    (["/bin/sh", "-c", "echo nothing"], PROGRAM, "alice", "MapperError"),
    (["/bin/sh", "-c", "echo '[]'"], PROGRAM, "alice", "MapperError"),
    (["/nonexistent/program"], PROGRAM, "alice", "MapperError"),
    (["true"], COMMAND, "alice", "DocumentError"),
    (["./true"], COMMAND, "alice", "DocumentError"),
    (["/bin/true", "\0"], COMMAND, "alice", "DocumentError"),
    (["/bin/true", 5], SHAPE, "alice", "DocumentError"),
]
"""Commands of a document that comes before USUAL, why the answers differ, and both: an account or an error."""


def program_answers(command: list[object]) -> tuple[str | None, str]:
    """The account that the library leads to, and ours or what hinders it."""
    documents = [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": command}, USUAL]
    ids = {"connector": POSIX_CONNECTOR, "storage_gateway": ZERO_UUID}
    theirs = compute_pick(load_mappers(documents, **ids), RECORDS)
    try:
        decision = decide(Mapper.parse(json.dumps(documents)), RECORDS)
    except (DocumentError, MapperError) as e:
        return theirs, type(e).__name__
    return theirs, str(decision.account)


EXPLODING = [
    ("(.*)*@x", 1024 * "a"),
    ("(a*)*b", 1022 * "a" + "cb"),
    ("((a*)*)*b", 1022 * "a" + "cb"),
    (r"(.*\.)*@x", 510 * "a." + "a@x"),
    ("(a|a)*b", 1022 * "a" + "cb"),
    ("(a|aa|aaa)*b", 1022 * "a" + "cb"),
    ("(" * 20 + "a*" + ")*" * 20 + "@x", 1020 * "a" + "c@x"),
    ("(" + "a?" * 1000 + ")*@x", 1020 * "a" + "c@x"),
]


@pytest.fixture(scope="module")
def run() -> Checker:
    """All the random cases."""
    checker = Checker()
    for seed in range(DOCUMENTS):
        checker.case(Generator(seed, traps=seed % 4 != 0).case())
    return checker


def test_random_documents(run: Checker) -> None:
    """The differences are checked as they come up; these say that the run was worth something."""
    assert run.compared > 4 * DOCUMENTS
    assert run.mapped > run.compared / 5


def test_every_rule_is_documented_and_occurs(run: Checker) -> None:
    section = (Path(__file__).parents[2] / "docs/identity.md").read_text().partition("\n## What is stricter ")[2]
    section = section.partition("\n## ")[0]
    lines = [line.removeprefix("| ") for line in section.splitlines()]
    assert {rule for rule in RULES if not any(line.startswith(rule) for line in lines)} == set()
    elsewhere = {rule for _, rule, _, _ in PROGRAMS} | {EXPLOSIVE}
    assert RULES - set(run.seen) - elsewhere == set()
    assert set(run.seen) <= RULES


@pytest.mark.parametrize(("command", "rule", "theirs", "ours"), PROGRAMS)
def test_programs(command: list[object], rule: str | None, theirs: str, ours: str) -> None:
    assert program_answers(command) == (theirs, ours)
    assert (rule is None) == (theirs == ours)


@pytest.mark.parametrize(("match", "value"), EXPLODING)
def test_what_explodes_there_ends_here(match: str, value: str) -> None:
    mapping = {"source": "{username}", "match": match, "output": "al"}
    with pytest.raises(TimeoutError), limited(0.2):
        library_load(mapping).map_identity(record(username=value))
    mapper = Mapper.parse(json.dumps([document(mapping)]))
    with limited(0.2):
        assert decide(mapper, [record(username=value)]).account is None


def test_random_patterns_with_repeats_in_repeats_end() -> None:
    """Through ours only, with values as long as they may be."""
    tried = 0
    for seed in range(400):
        generator = Generator(seed, traps=False)
        tree = generator.alternatives(0, 50)
        if tree.level >= 2 and library_load(usual_mapping(tree.text)):
            compiled = pattern.compile_match(tree.text)
            value = "".join(tree.sample() or "a" for _ in range(1024))[:1000] + tree.sample()[:24]
            with limited(0.3), contextlib.suppress(nfa.TooMuchWork):
                compiled.fullmatch(value)
            tried += 1
    assert tried > 50


def usual_mapping(match: str, **more: object) -> dict[str, Any]:
    return {"source": "{username}", "match": match, "output": "al", **more}


def test_limits() -> None:
    """What the library still answers, and we do not: no later mapping may stand in for what was too long to decide."""
    long = {"username": 600 * "a", "email": 600 * "b"}
    for first in ([], [usual_mapping("x", source="{username}{email}", literal=True)]):
        narrow = usual_mapping("(.*)", source="{username}{email}", output="narrow")
        broad = usual_mapping(".*", source="{id}", output="broad")
        mapper = Mapper.parse(json.dumps(document(*first, narrow, broad)))
        assert decide(mapper, [record(**long)]).account is None


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(
    st.text("ab.?*|()\\@+$1k", max_size=10),
    st.lists(st.text("ab.@+$1kK\u212a\n\\", max_size=7), max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["al", "{0}", "{1}", "x{username}", "{-0}"]),
)
def test_any_text(match: str, values: list[str], literal: bool, ignore_case: bool, output: str) -> None:
    mapping = usual_mapping(match, literal=literal, ignore_case=ignore_case, output=output)
    with limited():
        Checker().mapping(mapping, [record(username=value) for value in values])


def test_plain_patterns_match_and_capture_alike() -> None:
    """Without traps there is no rule: every pattern and value, all groups."""
    compared = matched = 0
    for seed in range(SAFE_PATTERNS):
        generator = Generator(seed, traps=False)
        tree, ignore_case = generator.pattern(), generator.chance(25)
        values = [generator.spoilt(tree.sample()) for _ in range(4)]
        values += [generator.other_case(values[0]), "".join(generator.random.choices("ab-k", k=seed % 9))]
        theirs = library_load(usual_mapping(tree.text, ignore_case=ignore_case))
        try:
            ours = pattern.compile_match(tree.text, ignore_case=ignore_case)
        except PatternError:
            assert theirs is None or tree.groups > 20, tree.text
            continue
        values.append(f"{values[0][:2]}\n{values[0][2:]}x")  # `.` is not every character
        for value in (value[: tree.longest] for value in values if not value[: tree.longest].endswith("\n")):
            with limited():
                found = theirs.mappings[0]["compiled_match"].match(value)
            expected = found.groups() if found else None
            assert ours.fullmatch(value) == expected, (tree.text, ignore_case, value)
            compared += 1
            matched += found is not None
    assert compared > 4 * SAFE_PATTERNS
    assert matched > compared / 3


def test_tables_of_mappings_decide_alike() -> None:
    """Ours looks up which of many mappings to try; the library tries one after the other."""
    compared = matched = 0
    for seed in range(300):
        case = Generator(seed, traps=False).table()
        every = case.documents[0]["mappings"] = [each for each in case.documents[0]["mappings"] if library_load(each)]
        theirs = ExpressionIdentityMapping.from_mapping_document(document(*every))
        ours = Mapper.parse(json.dumps(case.documents))
        for asked in case.records:
            with limited():
                name = theirs.map_identity(asked)
            assert (case.documents, asked, decide(ours, [asked]).account) == (case.documents, asked, name)
            compared += 1
            matched += name is not None
    assert matched > compared / 2
