"""What the official library answers to 1039 questions, beside what we answer.

`vectors.jsonl` was recorded with globus-identity-mapping 0.6.0. Each line is an object: a configuration and an identity
set, asked about in one way or several.

`documents`   the configuration; an expression document is the list of its mappings, and a mapping
              [source, match, output, its other keys]
`identities`  records: [id, username, fields that differ from the usual ones, fields that are missing], or the user name
              alone. {"record": x} is x as it stands, and {"set": x} is x in place of the list
`load`        what was loaded, 0 for an error
`each`        `map_identity` of each identity, for each document: a list of names; null: no mapping, 0: an error
`all`         `map_identities`, for each document: for each mapping {number of the identity: [names]}; 0: an error
`picked`      the identity and the name that Globus Compute takes
`strict`      where a stricter engine should differ: how, in one word (see `STRICT`)
`ours`        our answers where they differ, worked out with a small model on Python's `re`; `found` is what
              `Decision.found` holds

Without `strict` the answers are the same, but for `EXCEPTIONS`: the rule is a line of docs/identity.md each time. Three
rules need no list, as they are seen in the answer: a name that no account may have is compared too, and must then be
refused; a record with control characters must refuse the set; the status counts in every call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from identity import document_parser, external
from identity.account_name import problem
from identity.documents import Document, ExpressionDocument, ExpressionMapping, ExternalDocument
from identity.expression import accepted, apply
from identity.identities import Identity, SetRefused, canonical_id, read
from identity.jsontext import DocumentError
from identity.lookup import Lookup
from identity.mapper import POSIX_CONNECTOR, Mapper
from identity.runner import MapperError
from mep.monitor.stages import mapping_programs

from .samples import decide, run

HERE = Path(__file__).parent
GATEWAY = "22222222-3333-4444-8555-666666666666"
USUAL = {
    "name": "Alice Example",
    "organization": "Example Org",
    "identity_provider": "dddddddd-0004-4000-8000-00000000000d",
    "identity_type": "login",
    "status": "used",
}
ERROR = 0

STRICT = {
    "": "answers",
    **dict.fromkeys(("single_pass", "whole_string", "no_trailing_newline", "ascii_case_only"), "answers"),
    **dict.fromkeys(("true_literal", "refuse_or_linear", "refuse_result", "ignore_stderr"), "answers"),
    **dict.fromkeys(("compare_as_uuid", "skip_mapping", "skip_identity", "filter_before_call"), "answers"),
    **dict.fromkeys(("deny_output", "deny_empty", "deny_unless_used_or_private"), "answers"),
    "lint_warn": "hinted",
    "deny": "nobody is found",
    "refuse_load": "not loaded",
}
"""What is looked at for each value of `strict`: with `ours` where the answers differ."""

EXCEPTIONS = {
    ("`{2}` with two groups", "not loaded"): """
        src/empty-braces src/empty-braces-key src/number match/literal-group-ref-in-output out/empty-token
        out/missing-group-no-match
        random/domains 0 2 4 6 8 10 11 11/compute 12 16 20 24 27 37 37/compute 45 48 49 49/compute 51 51/compute 54 55
            55/compute 56 58
        random/templates 4 7 8 9 10 11 12 16 17 18 19 21 26 27 28 29 33 34 35 36 44 45 47 49 50 51 54 56 57 58 59
        random/tokens 1 6 12 22 25 29 44 46 56 57 61 62 68 71 74 76 78 80 83 95 97 98 115 118 119 123 127 128 131 132
            138 145 147 155""",
    ("unknown DATA_TYPE, empty lists", "not loaded"): """
        doc/empty-list doc/null doc/mappings-empty eval/identities-null-no-mappings eval/no-mappings
        eval/no-mappings-no-identities set/empty-config set/unknown-type-first/map_identities
        random/domains 9/compute 27/compute 45/compute""",
    ("commands such as `map`", "not loaded"): "ext/argv-stdin-two ext/nul-in-argument",
    ("a value that looks like a token", "answers"): "out/both",
    ("`a\\|b` without brackets", "answers"): "random/tokens 17 18 24 36 84 117 125 153",
    ("`literal` with backslashes", "answers"): "random/literal 17 20 23 34 38 51",
    ("a program that answers twice", "answers"): """
        ext/two-for-one-id ext/duplicate-result ext/two-ids-reversed random/external 3 4 6 7 11 12 13 30 33 34""",
    ("a program asked about one identity", "answers"): "ext/argv-plain",
    ("a failing program", "failure"): "set/failing-external-first/compute",
    ("an identity set that is no list", "nobody is found"): """
        eval/same-id-twice-second-only set/two-outputs-same-identity/compute ext/id-not-uuid-in
        ext/identity-no-id-empty-stdout ext/identities-null ext/identities-null-echo ext/identities-object
        ext/identities-number""",
}  # fmt: skip
"""(the begin of the rule's line in docs/identity.md, what is looked at) and the vectors."""


def names(text: str) -> Iterator[str]:
    """`random/tokens 1 12/compute` is short for `random/tokens-001 random/tokens-012/compute`."""
    family = ""
    for word in text.split():
        if word[0].isdigit():
            number, _, call = word.partition("/")
            yield f"{family}-{int(number):03}{'/' + call if call else ''}"
        else:
            family = word
            if word not in ("random/domains", "random/templates", "random/tokens", "random/literal", "random/external"):
                yield word


KIND = {name: kind for (_, kind), text in EXCEPTIONS.items() for name in names(text)}
VECTORS = [json.loads(line) for line in (HERE / "vectors.jsonl").read_text().splitlines()]


def document(short: Any) -> Any:
    if not isinstance(short, list):
        return short
    mappings = [dict(zip(("source", "match", "output"), m, strict=False)) | (m[3] if m[3:] else {}) for m in short]
    return {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": mappings}


def record(number: int, short: Any) -> Any:
    if isinstance(short, dict):
        return short["record"]
    if isinstance(short, str):
        short = [f"00000000-0000-4000-8000-{number:012x}", short]
    identity_id, username, more, missing = (*short, {}, [])[:4] if len(short) < 3 else (*short, [])[:4]
    whole = {"id": identity_id, "sub": identity_id, "username": username, "email": username, **USUAL, **more}
    return {key: value for key, value in whole.items() if key not in missing}


class Vector:
    """One line, written out."""

    def __init__(self, line: dict[str, Any]) -> None:
        self.line = line
        short = line["documents"]
        self.text = json.dumps([document(one) for one in short] if isinstance(short, list) else short)
        records = line.get("identities", [])
        self.set = records["set"] if isinstance(records, dict) else [record(i, one) for i, one in enumerate(records)]
        self.expected = {**line, **line.get("ours", {})}

    def number(self, identity_id: str) -> str:
        """The number of the identity, as the vectors have it for a key."""
        return str([isinstance(one, dict) and str(one.get("id")).lower() for one in self.set].index(identity_id))

    def found(self) -> dict[str, str]:
        decision = decide(Mapper.parse(self.text), self.set, gateway_id=GATEWAY)
        return {self.number(found.identity): found.account for found in decision.found}


def name(mapping: ExpressionMapping, who: Identity, value: Any) -> str | int | None:
    """The answer of one mapping, before names are refused; that they are is asserted here."""
    applied = apply(mapping, who, value)
    if applied is None or applied.name is not None:
        return None if applied is None else applied.name
    if not applied.reason.startswith("the name it gives is refused"):
        return ERROR
    groups = mapping.match.fullmatch(value)
    assert groups is not None
    raw = mapping.output.fill(who.fields, groups)
    assert applied == accepted(raw)
    return raw


def ask(document: ExternalDocument, who: list[Identity]) -> dict[str, str] | None:
    try:
        return asyncio.run(external.Program(document).ask(who, POSIX_CONNECTOR, GATEWAY, run))
    except MapperError:
        return None


def each(of: Document, who: Identity) -> str | int | None:
    """As `map_identity` of the library: the first mapping that matches, or whose texts cannot be built."""
    if isinstance(of, ExpressionDocument):
        answers = (name(mapping, who, value) for mapping, value in Lookup(of.mappings).candidates(who.fields))
        return next((answer for answer in answers if answer is not None), None)
    found = ask(of, [who])
    return ERROR if found is None else found.get(who.id)


def every(of: Document, vector: Vector, usable: list[Identity]) -> Any:
    """As `map_identities` of the library, except that a program is always one object."""
    if isinstance(of, ExpressionDocument):
        by_mapping: dict[int, dict[str, list[Any]]] = {id(mapping): {} for mapping in of.mappings}
        for who in usable:
            for mapping, value in Lookup(of.mappings).candidates(who.fields):
                answer = name(mapping, who, value)
                if answer == ERROR:
                    return ERROR
                if answer is not None:
                    by_mapping[id(mapping)][vector.number(who.id)] = [answer]
        return list(by_mapping.values())
    found = ask(of, identities(vector.set))
    return ERROR if found is None else [{vector.number(who): [answer] for who, answer in found.items()}]


def identities(records: list[Any]) -> list[Identity]:
    """Whatever their status."""
    return [Identity(who, one) for one in records if isinstance(one, dict) and (who := canonical_id(one.get("id")))]


def usable(identity_set: Any) -> list[Identity] | None:
    """Those that count; None for a set with control characters."""
    try:
        return read(identity_set)[0]
    except SetRefused as e:
        assert "control character" in str(e)
        return None


def check_answers(vector: Vector) -> None:
    loaded, _ = document_parser.parse(vector.text, "v")
    if "load" in vector.expected:
        assert [type(one).__name__.removesuffix("Document").lower() for one in loaded] == vector.expected["load"]
    if "each" in vector.expected:
        check_each(vector, loaded)
    if "all" in vector.expected and (counting := usable(vector.set)) is not None:
        expected = [answer or [{}] if isinstance(of, ExternalDocument) and answer != ERROR else answer
                    for of, answer in zip(loaded, vector.expected["all"], strict=True)]  # fmt: skip
        assert [every(of, vector, counting) for of in loaded] == expected


def check_each(vector: Vector, loaded: tuple[Document, ...]) -> None:
    mapper = Mapper.parse(vector.text)
    for number, one in enumerate(vector.set):
        wanted = [answers[number] for answers in vector.expected["each"]]
        counting = usable([one])
        if not (counting is None and one["username"].endswith("\n")):  # which the library's patterns ignore
            who = Identity(canonical_id(one.get("id")) or "", one)
            assert [each(of, who) for of in loaded] == wanted
        first = next((answer for answer in wanted if answer is not None), None)
        if first != ERROR and all(isinstance(of, ExpressionDocument) for of in loaded):
            good = counting and isinstance(first, str) and problem(first) is None
            assert decide(mapper, [one]).account == (first if good else None)


def check_matches(line: dict[str, Any]) -> None:
    """Only the output is refused. What matches, and what does not, is compared all the same."""
    [[source, match, _, *flags]] = line["documents"][0]
    check = Vector({**line, "documents": [[[source, match, "x", *flags]]]})
    check.expected["each"] = [[None if answer is None else "x" for answer in check.expected["each"][0]]]
    check_answers(check)


def check_picked(vector: Vector) -> None:
    who, account = vector.expected["picked"] or (None, None)
    decision = decide(Mapper.parse(vector.text), vector.set, requester=who)
    assert decision.account == (None if account is None or problem(account) else account)


@pytest.mark.parametrize("line", VECTORS, ids=[line["name"] for line in VECTORS])
def test_vector(line: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    vector = Vector(line)
    if "slow" in line:
        monkeypatch.setattr(mapping_programs, "TIME_LIMIT", 0.3)
    kind = KIND.get(line["name"]) or STRICT[line.get("strict", "")]
    if kind == "not loaded" or vector.expected.get("load") == 0:
        with pytest.raises(DocumentError):
            Mapper.parse(vector.text)
        if line["name"].startswith("random/tokens") and "each" in line:
            check_matches(line)
    elif kind == "failure":
        with pytest.raises(MapperError):
            check_picked(vector)
    elif kind == "nobody is found":
        assert vector.found() == {}
    elif "found" in vector.expected:
        assert vector.found() == vector.expected["found"]
    elif "picked" in line:
        check_picked(vector)
    else:
        check_answers(vector)
        assert kind != "hinted" or Mapper.parse(vector.text).hints


def test_exceptions_are_documented() -> None:
    lines = (HERE.parent.parent / "docs" / "identity.md").read_text().splitlines()
    table = lines[lines.index("## What is stricter than the official library, and why") :]
    assert [rule for rule, _ in EXCEPTIONS if not any(line.startswith(f"| {rule}") for line in table)] == []


def test_every_exception_is_a_vector() -> None:
    assert KIND.keys() - {line["name"] for line in VECTORS} == set()
    differing = {line["name"] for line in VECTORS if "ours" in line and "strict" not in line}
    assert differing - {name for name, kind in KIND.items() if kind == "not loaded"} == {
        name for name, kind in KIND.items() if kind == "answers"
    }
