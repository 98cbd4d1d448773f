"""Ours beside the official library, on thousands of random documents and identity sets.

Every difference must be one that docs/identity.md promises: a step of `Strict` below that departs from the library
names a row of the table "What is stricter". Steps look at the document and the record, never at the answers. So three
things are compared for each mapping and identity: what the library says, what we say, and what we should say. Where no
step departs, all three are the same. Then the whole sets: the account that Globus Compute would take, and ours.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
from identity.runner import MapperError

from .generator import IDS, Case, Generator
from .samples import ALICE, BOB, decide, expression, record

DOCUMENTS = 5000
SAFE_PATTERNS = 4000

BRANCHES = r"`a\|b` without brackets"
CONTROL = "a newline at the end of a value"
FINAL_BACKSLASH = r"`\` at the end of `match`"
EXTENSIONS = r"`(?...)`, `\1`, `\0`"
EXPLOSIVE = "patterns such as `(.*)*@x`"
FOLDING = "`ignore_case`"
LITERAL = "`literal` with backslashes"
TOKENS = "`{2}` with two groups"
EXPANSION = "a value that looks like a token"
FIELD = "a field that is missing, null or no string"
NAME = "names such as `root`"
STATUS = "status `unused` or unknown"
LINKED = "linked identities with different accounts"
PROGRAM = "a failing program"
SHAPE = "unknown DATA_TYPE, empty lists"
EMPTY = "an empty `match`"
COMMAND = "commands such as `map` or `./map`"
TWICE = "a program that answers twice"
IDENTITY = "an identity set that is no list, an id that is no UUID"
LIMITS = "Limits:"
RULES = {
    *(BRANCHES, CONTROL, FINAL_BACKSLASH, EXTENSIONS, EXPLOSIVE, FOLDING, LITERAL, TOKENS, EXPANSION, FIELD, NAME),
    *(STATUS, LINKED, PROGRAM, SHAPE, EMPTY, COMMAND, TWICE, IDENTITY, LIMITS),
}
"""How a row of the table begins; the limits stand below it."""

NONE = ("no account",)
DENIED = ("no account, whatever follows",)
SKIPPED = ("the identity does not count",)
SET_REFUSED = ("the set is refused",)
FALLEN = "zz_next_mapping"
"""The account of a mapping that is put after the one in question: who gets it was not decided by that one."""
Answer = tuple[str, ...]

TOKEN = re.compile(r"(?<!\\)(?:\\\\)*({([^}]*)})")
SIGNS = re.compile(r"\\.?|[^\\]", re.DOTALL)
UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
ACCOUNT = re.compile("[a-z_][a-z0-9_.-]{0,31}")


@pytest.fixture(autouse=True, scope="module")
def _entry_points() -> Iterator[None]:
    """The library reads the metadata of all packages for each document that it loads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", cache(importlib.metadata.entry_points))
        yield


@contextmanager
def limited(seconds: float = 2.0) -> Iterator[None]:
    """The library's matcher may take for ever, but it looks for signals."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# What the two say


def document(*mappings: object) -> dict[str, Any]:
    return {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": list(mappings)}


def library_load(mapping: dict[str, Any]) -> Any:
    try:
        return ExpressionIdentityMapping.from_mapping_document(document(mapping))
    except Exception:
        return None


def library_answer(mapper: Any, asked: dict[str, Any]) -> Answer:
    try:
        name = mapper.map_identity(asked)
    except TimeoutError:
        raise
    except Exception as e:
        return ("error", type(e).__name__)
    return NONE if name is None else ("account", name)


def our_load(text: str) -> Mapper | None:
    try:
        return Mapper.parse(text)
    except DocumentError:
        return None


def our_answer(mapper: Mapper, asked: dict[str, Any]) -> Answer:
    """mapper: of a document in which the mapping FALLEN comes last."""
    decision = decide(mapper, [asked])
    if decision.account is not None:
        return NONE if decision.account == FALLEN else ("account", decision.account)
    if any(passed.where == "identity set" for passed in decision.passed_over):
        return SKIPPED
    return DENIED if decision.passed_over else SET_REFUSED


# What we should say


def plain(match: str) -> str:
    """The match text as Python writes it, as the library does that."""
    return re.sub(r"(?<!\\)([\^\$\+\{\}\[\]])", r"\\\1", match)


def signs(match: str) -> list[str]:
    """One after the other, each escape as one."""
    return SIGNS.findall(match)


def fold(text: str) -> str:
    return re.sub("[A-Z]", lambda letter: letter[0].lower(), text)


def has_outer_branches(match: str) -> bool:
    depth = 0
    for sign in signs(match):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "|" and depth == 0:
            return True
    return False


def load_rules(mapping: dict[str, Any]) -> set[str]:
    """The rows for which we refuse a mapping that may be acceptable to the library."""
    match, literal = mapping["match"], mapping.get("literal", False)
    rules = set()
    if not all(isinstance(mapping.get(key, False), bool) for key in ("literal", "ignore_case")):
        rules.add(SHAPE)
    if not isinstance(mapping["source"], str) or not isinstance(mapping["output"], str):
        rules.add(SHAPE)
        return rules
    if any(re.search("[\ud800-\udfff]", mapping[key]) for key in ("source", "match", "output")):
        rules.add(SHAPE)
    found = [] if literal else signs(match)
    groups = found.count("(")
    if len(match) > 8192 or groups > 20:
        rules.add(LIMITS)
    if found and found[-1] == "\\":
        rules.add(FINAL_BACKSLASH)
    if any(re.fullmatch(r"\\[0-9]", sign) for sign in found) or ("(", "?") in itertools.pairwise(found):
        rules.add(EXTENSIONS)
    if not match and not literal:
        rules.add(EMPTY)
    if bad_tokens(mapping["source"], 0) or bad_tokens(mapping["output"], groups):
        rules.add(TOKENS)
    return rules


def bad_tokens(template: str, groups: int) -> bool:
    return any(is_bad(name, groups) for _, name in TOKEN.findall(template))


def is_bad(name: str, groups: int) -> bool:
    """Neither the number of a group, plainly written, nor the name of a field."""
    if re.fullmatch("0|[1-9][0-9]*", name):
        return int(name) >= groups
    try:
        int(name)
    except ValueError:
        return not name or name[0].isdigit()
    return True


class Strict:
    """What a mapping that was loaded should say of an identity; `rules` gets the rows by which that may depart."""

    def __init__(self, mapping: dict[str, Any], asked: dict[str, Any]) -> None:
        self.mapping, self.record = mapping, asked
        self.rules: list[str] = []

    def depart(self, rule: str, answer: Answer) -> Answer:
        self.rules.append(rule)
        return answer

    def answer(self) -> Answer:
        asked = self.record
        if not isinstance(asked["id"], str) or not UUID.fullmatch(asked["id"]):
            return self.depart(IDENTITY, SKIPPED)
        if asked["id"] != asked["id"].lower():
            self.rules.append(IDENTITY)
            self.record = asked = {**asked, "id": asked["id"].lower()}
        if asked.get("status") not in ("used", "private"):
            return self.depart(STATUS, SKIPPED)
        refused = set_rule(asked)
        if refused:
            return self.depart(refused, SET_REFUSED)
        source = self.fill(self.mapping["source"], ())
        if source is None:
            return NONE
        if len(source) > 1024:
            return self.depart(LIMITS, DENIED)
        groups = self.match(source)
        if groups is None:
            return NONE
        name = self.fill(self.mapping["output"], groups)
        if name is None:
            return DENIED
        if not is_account(name):
            return self.depart(NAME, DENIED)
        return ("account", name)

    def fill(self, template: str, groups: tuple[str | None, ...]) -> str | None:
        """Every token once, by what the record holds."""
        parts, at, values = [], 0, []
        for token in TOKEN.finditer(template):
            name = token[2]
            value = groups[int(name)] if name.isdigit() else self.record.get(name)
            if not isinstance(value, str):
                return self.depart(FIELD, NONE) and None
            parts += [template[at : token.start(1)], value]
            values.append((token[1], value))
            at = token.end()
        filled = "".join(parts) + template[at:]
        if any(token in value for token, _ in values for _, value in values):
            self.rules.append(EXPANSION)
        elif any(template.count(token) > sum(token == other for other, _ in values) for token, _ in values):
            self.rules.append(EXPANSION)  # an escaped copy is replaced together with one that is not
        return filled

    def match(self, source: str) -> tuple[str | None, ...] | None:
        match, ignore_case = self.mapping["match"], bool(self.mapping.get("ignore_case"))
        subject = fold(source) if ignore_case else source
        if ignore_case and not (source + match).isascii():
            self.rules.append(FOLDING)
        if self.mapping.get("literal"):
            if "\\" in match:
                self.rules.append(LITERAL)
            return () if (fold(match) if ignore_case else match) == subject else None
        if has_outer_branches(match):
            # The library's branches but the last need not reach the end, but only that makes a difference.
            theirs = re.match(f"^{plain(match)}$", source, re.IGNORECASE if ignore_case else 0)
            if theirs and theirs.end() < len(source):
                self.rules.append(BRANCHES)
        found = re.fullmatch(f"(?:{plain(fold(match) if ignore_case else match)})", subject)
        if found is None:
            return None
        return tuple(None if begin < 0 else source[begin:end] for begin, end in found.regs[1:])


def set_rule(asked: dict[str, Any]) -> str | None:
    """The row for which a set with this record, which counts, is refused."""
    texts = [text for text in (*asked, *asked.values()) if isinstance(text, str)]
    if any(CONTROLS.search(text) for text in texts):
        return CONTROL
    return LIMITS if any(len(text) > 1024 for text in texts) else None


# One mapping and one identity


class Checker:
    """Compares, and counts for each row how often it made a difference."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.compared = self.mapped = 0

    def mapping(self, mapping: dict[str, Any], records: list[dict[str, Any]]) -> list[tuple[Answer, Answer, list[str]]]:
        """For each record the library's answer, ours, and the rows; none if it was not loaded."""
        theirs = library_load(mapping)
        rest = {"source": "x", "match": "x", "literal": True, "output": FALLEN}
        ours = our_load(json.dumps(document(mapping, rest)))
        rules = load_rules(mapping)
        if theirs is None and mapping.get("literal") and "\\" in str(mapping["match"]) and not rules:
            rules = {LITERAL}
            should = True
        else:
            should = theirs is not None and not rules
        if (ours is not None) != should:
            fail("loading", mapping, theirs is not None, ours is not None, should, rules)
        if (theirs is not None) != should:
            self.seen.update(rules)
        if ours is None or theirs is None:
            return []
        return [self.pair(mapping, asked, theirs, ours) for asked in records]

    def pair(
        self, mapping: dict[str, Any], asked: dict[str, Any], mapper: Any, our_mapper: Mapper
    ) -> tuple[Answer, Answer, list[str]]:
        theirs, ours = library_answer(mapper, asked), our_answer(our_mapper, asked)
        strict = Strict(mapping, asked)
        should = strict.answer()
        if ours != should or (not strict.rules and theirs != should):
            fail("mapping", {"mapping": mapping, "record": asked}, theirs, ours, should, strict.rules)
        self.compared += 1
        self.mapped += theirs[0] == "account"
        if theirs != ours and theirs[0] in ("account", "error"):
            self.seen[cause(strict.rules, theirs)] += 1
        return theirs, ours, strict.rules

    def case(self, case: Case) -> None:
        """All pairs, then the set as a whole."""
        with limited():
            pairs = [[self.mapping(mapping, case.records) for mapping in each["mappings"]] for each in case.documents]
            self.whole(case, pairs)

    def whole(self, case: Case, pairs: list[list[list[tuple[Answer, Answer, list[str]]]]]) -> None:
        text = json.dumps(case.documents)
        if case.prefix:
            text = text.replace('"DATA_TYPE"', f'{case.prefix}"DATA_TYPE"', 1)
        try:
            theirs = load_mappers(json.loads(text))
        except Exception:
            theirs = None
        ours = our_load(text)
        wrong = document_is_odd(case)
        every_mapping = all(our_load(json.dumps(document(m))) for each in case.documents for m in each["mappings"])
        if (ours is not None) != (not wrong and every_mapping):
            fail("loading all", text, theirs is not None, ours is not None, every_mapping, [SHAPE] if wrong else [])
        if theirs is not None and wrong:
            self.seen[SHAPE] += 1
        if ours is None or theirs is None:
            return
        decision = decide(ours, case.records, requester=case.requester)
        if any(not found for mappings in pairs for found in mappings):
            return  # the library did not load a literal; there is nothing to compare with
        should, refused = expected(case, pairs)
        picked = compute_pick(theirs, case.records)
        rules = {rule for mappings in pairs for found in mappings for _, _, names in found for rule in names}
        rules |= {refused} - {None}
        accounts = {name for name in first_names(pairs) if name}
        if len(accounts) > 1:
            rules.add(LINKED)
        if decision.account != should or (not rules and picked != decision.account):
            shown = {"documents": case.documents, "records": case.records, "requester": case.requester}
            fail("the whole set", shown, picked, (decision.account, decision.refusal), should, rules)
        if refused and picked != decision.account:
            self.seen[refused] += 1
        if rules == {LINKED} and picked != decision.account:
            self.seen[LINKED] += 1


def cause(rules: list[str], theirs: Answer) -> str:
    """The last departure, but a refused name only if the library gives such a name: ours may follow from another."""
    others = [rule for rule in rules if rule != NAME]
    return others[-1] if others and (theirs[0] == "error" or is_account(theirs[1])) else rules[-1]


def is_account(name: str) -> bool:
    return name != "root" and ACCOUNT.fullmatch(name) is not None


def fail(what: str, about: object, theirs: object, ours: object, should: object, rules: object) -> None:
    lines = [f"{what}: no rule explains this", f"  {about!r}", f"  library: {theirs}", f"  ours:    {ours}"]
    pytest.fail("\n".join([*lines, f"  should:  {should}", f"  rules:   {rules}"]), pytrace=False)


# All mappings and all identities


def document_is_odd(case: Case) -> bool:
    """What the library passes over or guesses: SHAPE."""
    return (
        any(each["DATA_TYPE"] != "expression_identity_mapping#1.0.0" or not each["mappings"] for each in case.documents)
        or bool(case.prefix)
        or not case.documents
    )


def expected(case: Case, pairs: list[list[list[tuple[Answer, Answer, list[str]]]]]) -> tuple[str | None, str | None]:
    """The account, by the answers to the pairs; and a row for which the set as a whole is refused."""
    records: dict[str, dict[str, Any]] = {}
    if len(case.records) > 64:
        return None, LIMITS
    for asked in case.records:
        if isinstance(asked["id"], str) and UUID.fullmatch(asked["id"]):
            lower = {**asked, "id": asked["id"].lower()}
            if json.dumps(records.setdefault(lower["id"], lower), sort_keys=True) != json.dumps(lower, sort_keys=True):
                return None, IDENTITY
    found: dict[str, str] = {}
    for number, asked in enumerate(case.records):
        answers = [pair[number][1] for mappings in pairs for pair in mappings]
        if SET_REFUSED in answers:
            return None, set_rule(asked)
        decided = next((answer for answer in answers if answer != NONE), NONE)
        if decided[0] == "account":
            found[asked["id"].lower()] = decided[1]
    if case.requester in found:
        return found[case.requester], None
    return (next(iter(found.values())) if len(set(found.values())) == 1 else None), None


def first_names(pairs: list[list[list[tuple[Answer, Answer, list[str]]]]]) -> set[str]:
    """What the library finds, over all mappings and identities."""
    answers = [answer for mappings in pairs for found in mappings for answer, _, _ in found]
    return {answer[1] for answer in answers if answer[0] == "account"}


def compute_pick(mappers: Any, records: list[dict[str, Any]]) -> str | None:
    """As Globus Compute does: a mapper that fails counts for nothing, the first name found is taken."""
    for mapper in mappers:
        try:
            results = mapper.map_identities(records)
        except TimeoutError:
            raise
        except Exception:
            continue
        for result in results:
            for names in result.values():
                return names[0]
    return None


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


# The tests


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
        assert decide(our_load(json.dumps(document(*first, narrow, broad))), [record(**long)]).account is None  # type: ignore[union-attr]


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
        except pattern.PatternError:
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
