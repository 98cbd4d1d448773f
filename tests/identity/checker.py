"""Asks the official library and ours the same, and fails where no row of the documentation explains a difference."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from globus_identity_mapping.loader import load_mappers
from globus_identity_mapping.mappers.expression import ExpressionIdentityMapping

from identity.jsontext import DocumentError
from identity.mapper import Mapper

from .generator import Case
from .samples import decide
from .strict_model import (
    DENIED,
    FALLEN,
    IDENTITY,
    LIMITS,
    LINKED,
    LITERAL,
    NAME,
    NONE,
    SET_REFUSED,
    SHAPE,
    SKIPPED,
    UUID,
    Answer,
    Strict,
    is_account,
    load_rules,
    set_rule,
)


@contextmanager
def limited(seconds: float = 2.0) -> Iterator[None]:
    """Ends in TimeoutError after that much processor time: the library may match for ever, but it looks for signals."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


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
