"""Random mapping documents and identity sets for the differential test: seeded, and made so that much of it matches.

A pattern is made as a tree, which gives its text and, by sampling, values that it matches; values are spoilt now and
then. With traps, documents and records also hold what the documentation of the mapping calls dangerous.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

IDS = [f"aaaaaaaa-000{n}-4000-8000-00000000000{n}" for n in range(6)]
LETTERS = "aabbksi1"
OTHERS = "AKS@._- "
FOREIGN = "\u00e9\u00c9\u00df\u1e9e\u017f\u212a\u0131\u0130\u03a3\u03c2\uff11"
DOMAINS = {r"@a\.b": ["@a.b"], "@ab": ["@ab"], r"@(a|b)\.k": ["@a.k", "@b.k"], "-s@a": ["-s@a"]}
PIECES = {
    "(.*)*": ["", "a", "ab"],
    "((.*)-)": ["-", "a-", "-b-"],
    "(a(.*))": ["a", "ab"],
    "(a|ab)": ["a", "ab"],
    "(ab|a)": ["a", "ab"],
    "(b|)": ["", "b"],
    "(|b)": ["", "b"],
    "a?": ["", "a"],
    "(a)?": ["", "a"],
    "(a(b)?)": ["a", "ab"],
    "((a|b)-?)": ["a", "b-"],
    "()": [""],
    ".": ["a", "-"],
    "b*": ["", "b", "bb"],
    r"\.": ["."],
}
"""Parts of patterns and what they match."""

TRAP_SOURCES = [
    *(r"\{username}{username}", r"\{username}{username}", "{username}{missing}", "{missing}", "{0}", "{-1}", "{}"),
    *("{1.0}", "{a.b}", "{username", "{{name}}", "{name}{username}", "{username}{name}"),
]
TRAP_OUTPUTS = [
    *("{9}", "{-1}", "{ 0 }", "{+0}", "{00}", "{}", "{1.0}", "{0x1}", "{\u0661}", "{0", "{{0}}", r"\{0}{0}"),
    *(r"\{username}{username}", "root", "Alice", "1000", "-a", "a/b", "", "\u00e9", "a" * 33, "{0}{0}"),
    *("{username}{email}", "{username}{email}", "{missing}", "{name}{0}", "{username}{name}"),
]
TRAP_PIECES = ["(?:a)", "(?i:k)", "(?=a)", r"\0", r"(.)\1", r"\1", "\\", r"\d", r"\@", "*?", "**", "(", ")", "\ud800"]
CONTROLS = ["\n", "\n", "\r", "\x1b", "\x00", "\x85", "\ud800"]


@dataclass
class Tree:
    """A part of a pattern: its text, and a way to make up values for it.

    level: how deep repeats stand within repeats. At two and more the library's time doubles with every character.
    """

    text: str
    sample: Callable[[], str]
    level: int = 0
    groups: int = 0

    @property
    def longest(self) -> int:
        """Most characters of a value that the library comes to an end with."""
        return (1024, 20, 8, 4)[self.level]


@dataclass
class Case:
    """Documents, an identity set, and who asks. prefix: JSON to put into the first document that no dict can hold."""

    documents: list[dict[str, Any]]
    records: list[dict[str, Any]]
    requester: str | None = None
    prefix: str = ""


@dataclass
class Made:
    """A mapping, values of fields that it is likely to match, and how long values may be."""

    mapping: dict[str, Any]
    values: Callable[[], dict[str, Any]]
    longest: int


class Generator:
    """Everything comes from one `random.Random`, so a seed says it all."""

    def __init__(self, seed: int, *, traps: bool) -> None:
        self.random = random.Random(seed)
        self.traps = traps
        self.alphabet = LETTERS * 4 + OTHERS + (FOREIGN if traps else "")

    def chance(self, of_hundred: float) -> bool:
        return self.random.random() * 100 < of_hundred

    def trap(self, of_hundred: float) -> bool:
        return self.traps and self.chance(of_hundred)

    # patterns

    def pattern(self) -> Tree:
        kind = self.random.choice(["usual", "shaped", "any"])
        outer_branches = 12 if self.traps else 0
        tree = {"usual": self.usual, "shaped": self.shaped, "any": lambda: self.alternatives(0, outer_branches)}[kind]()
        return self.spoilt_pattern(tree) if self.trap(9) else tree

    def usual(self) -> Tree:
        """What administrators write."""
        name = Tree("(.*)", lambda: "".join(self.random.choices(LETTERS, k=self.random.randint(0, 6))), 1, 1)
        domain = self.random.choice(list(DOMAINS))
        return join([name, Tree(domain, lambda: self.random.choice(DOMAINS[domain]), 0, domain.count("("))])

    def shaped(self) -> Tree:
        """Texts and `.*` in a row, made of few letters: there are many ways to match, and one of them is right."""
        return join([self.piece() for _ in range(self.random.randint(1, 5))])

    def piece(self) -> Tree:
        text = self.random.choice([*["(.*)", ".*"] * 2, *"-abk", "ab", *PIECES])
        values = PIECES.get(text) or (["", "a", "ab", "-a", "b-a"] if ".*" in text else [text])
        level = 2 if text.endswith(")*") else int("*" in text)
        return Tree(text, lambda: self.random.choice(values), level, text.count("("))

    def alternatives(self, depth: int, of_hundred: float) -> Tree:
        if not self.chance(of_hundred):
            return self.sequence(depth)
        parts = [self.sequence(depth) for _ in range(self.random.randint(2, 3))]
        return Tree(
            "|".join(part.text for part in parts),
            lambda: self.random.choice(parts).sample(),
            max(part.level for part in parts),
            sum(part.groups for part in parts),
        )

    def sequence(self, depth: int) -> Tree:
        shortest = 0 if depth and self.chance(10) else 1
        return join([self.repeated(depth) for _ in range(self.random.randint(shortest, max(1, 4 - depth)))])

    def repeated(self, depth: int) -> Tree:
        atom = self.atom(depth)
        if atom.level == 3 or not self.chance(35):
            return atom
        most = 1 if self.chance(35) else 3
        return Tree(
            atom.text + ("?" if most == 1 else "*"),
            lambda: "".join(atom.sample() for _ in range(self.random.randint(0, most))),
            min(3, atom.level + 1 + ("|" in atom.text)),
            atom.groups,
        )

    def atom(self, depth: int) -> Tree:
        kind = self.random.randrange(10)
        if kind < 4:
            return self.char()
        if kind < 6:
            return Tree(".", lambda: self.random.choice(self.alphabet))
        if kind == 6:
            escaped = self.random.choice(".?*|()\\")
            return Tree(f"\\{escaped}", lambda: escaped)
        return self.group(depth + 1) if depth < 3 else self.char()

    def char(self) -> Tree:
        char = self.random.choice(self.alphabet + ("^$+[]{}" if self.chance(30) else ""))
        return Tree(f"\\{char}" if char == "." else char, lambda: char)

    def group(self, depth: int) -> Tree:
        inner = self.alternatives(depth, 30)
        return Tree(f"({inner.text})", inner.sample, inner.level, inner.groups + 1)

    def spoilt_pattern(self, tree: Tree) -> Tree:
        piece = self.random.choice(TRAP_PIECES)
        texts = [tree.text + piece] * 6 + [piece + tree.text] * 3 + [""]
        return Tree(self.random.choice(texts), tree.sample, 3, tree.groups)

    def literal(self) -> Tree:
        text = "".join(self.random.choice("abk1.*?|()+$^@" + ("\\\\\\\u00e9" if self.traps else "")) for _ in range(4))
        # The other values are those that the library takes a literal with backslashes for.
        values = [text, text, text.replace("\\", ""), text.replace("\\\\", "\\"), text.replace("\\.", "\\x")]
        return Tree(text, lambda: self.random.choice(values), 3 if "\\" in text else 0)

    # documents

    def case(self) -> Case:
        """Documents and a set, in which some records have values made for some mapping."""
        count = self.random.choice([1, 1, 2])
        made = [[self.mapping() for _ in range(self.random.randint(1, 3))] for _ in range(count)]
        together = [one for mappings in made for one in mappings]
        ids = self.random.sample(IDS, self.random.randint(1, 3))
        records = [self.record(identity_id, together) for identity_id in ids]
        documents = [document(mappings) for mappings in made]
        case = Case(documents, records, self.random.choice([None, None, *IDS[:3]]))
        if self.traps:
            self.spoil_documents(case)
        return case

    def table(self) -> Case:
        """A document of many mappings with few sources; the account tells which of them decided."""
        made = [self.mapping() for _ in range(self.random.randint(10, 30))]
        for number, one in enumerate(made):
            one.mapping["output"] = f"m{number}"
        return Case([document(made)], [self.record(IDS[0], made) for _ in range(10)])

    def mapping(self) -> Made:
        return self.expanding() if self.trap(4) else self.ordinary()

    def expanding(self) -> Made:
        """Values that look like tokens, which stand where they are read."""
        source = self.random.choice(["{name}{username}", "{username}", r"\{username}{username}"])
        match = self.random.choice(["(.*)", "(.*)", ".*b", "ab*", r"\\.*", r"\\.username.*"])
        output = self.random.choice(["{username}{email}", "{name}{username}", "al", "{name}"])
        values = ["{email}", "{email}", "{username}", "{name}", "a", "ab"]

        def fields() -> dict[str, Any]:
            return {name: self.random.choice(values) for name in ("username", "name")} | {"email": "b"}

        return Made({"source": source, "match": match, "output": output}, fields, 1024)

    def ordinary(self) -> Made:
        fields = self.random.choice([["username"]] * 6 + [["email"], ["id"], ["identity_provider", "email"]])
        literal = self.chance(15)
        if fields == ["id"]:
            which = self.random.choice(IDS)
            tree = Tree(which, lambda: which)
        else:
            tree = self.literal() if literal else self.pattern()
        source = ":".join(f"{{{name}}}" for name in fields)
        match = tree.text if len(fields) == 1 else f"idp:{tree.text}"
        if self.trap(6):
            source = self.random.choice(TRAP_SOURCES)
        if self.trap(0.3):
            match += self.random.choice(["a" * 8200, "()" * 21])
        mapping = {"source": source, "match": match, "output": self.output(0 if literal else tree.groups)}
        if literal or self.trap(1):
            mapping["literal"] = self.flag(literal)
        if self.chance(20):
            mapping["ignore_case"] = self.flag(True)
        if self.trap(0.5):
            mapping[self.random.choice(["source", "output"])] = self.random.choice([5, None, ["a"]])

        def values() -> dict[str, Any]:
            sampled = tree.sample()
            value = self.spoilt(self.other_case(sampled) if "ignore_case" in mapping else sampled)
            return {} if fields == ["id"] else {"identity_provider": "idp", fields[-1]: value}

        return Made(mapping, values, tree.longest)

    def flag(self, value: bool) -> object:
        return self.random.choice(["true", "false", 1, 0, None]) if self.trap(2) else value

    def output(self, groups: int) -> str:
        if self.trap(20):
            return self.random.choice(TRAP_OUTPUTS)
        numbers = [f"{{{number}}}" for number in range(groups)]
        usual = ["alice", "bob", "u_{username}", *numbers, *(f"x{number}" for number in numbers)]
        return self.random.choice([*usual, "{1}{0}"] if groups > 1 else usual)

    def spoil_documents(self, case: Case) -> None:
        if self.chance(1):
            case.documents[0]["DATA_TYPE"] = "expression_identity_map#1.0.0"
        if self.chance(1):
            case.documents[-1]["mappings"] = []
        if self.chance(0.5):
            case.documents = []
        if self.chance(1):
            case.prefix = self.random.choice(['"note": NaN, ', '"note": 1, "note": 2, ', '"note": -Infinity, '])
        if self.chance(0.3):
            case.records = [dict(case.records[0], id=f"aaaaaaaa-0000-4000-8000-{n:012}") for n in range(65)]

    # records

    def record(self, identity_id: str, made: list[Made]) -> dict[str, Any]:
        record = {
            "id": self.random.choice(IDS) if self.trap(5) else identity_id,
            "username": "".join(self.random.choices("abk@.", k=self.random.randint(1, 5))),
            "email": self.random.choice(["a@ab", "b", "alice"]),
            "name": self.random.choice(["a", "bk", "k s"]),
            "identity_provider": self.random.choice(["idp", "idq"]),
            "last_authentication": 5,
            "status": self.random.choice(["used", "used", "private"]),
            **self.random.choice(made).values(),
        }
        if self.trap(30):
            self.spoil(record)
        longest = min(one.longest for one in made)
        for key in ("username", "email"):
            if isinstance(record.get(key), str):
                record[key] = record[key][:longest]
        return record

    def other_case(self, text: str) -> str:
        others = {"k": "K\u212a", "s": "S\u017f", "i": "I\u0131\u0130"} if self.traps else {}
        folded = (self.random.choice(others.get(c, c.swapcase())) if self.chance(25) else c for c in text)
        return "".join(folded)

    def spoilt(self, value: str) -> str:
        if self.chance(70):
            return value
        at = self.random.randint(0, len(value))
        return self.random.choice(
            [
                value + self.random.choice([".evil", "a", "\n", "$x"] if self.traps else [".evil", "a"]),
                value[:-1],
                self.random.choice("ab@") + value,
                value[:at] + self.random.choice(self.alphabet) + value[at:],
                value.swapcase(),
            ]
        )

    def spoil(self, record: dict[str, Any]) -> None:
        key = self.random.choice(["username", "email", "name", "identity_provider"])
        match self.random.randrange(9):
            case 0:
                record.pop(key)
            case 1:
                record[key] = self.random.choice([None, 0, False, 7, ["a"], {"a": "b"}])
            case 2:
                record[key] += self.random.choice(CONTROLS)
            case 3:
                record[key] = self.random.choice(["{email}", "{0}", "{username}", "{name}", "{0}{0}", "x{1}"])
            case 4:
                record["status"] = self.random.choice(["unused", "Used", None, 5, "closed", "used ", ""])
            case 5:
                del record["status"]
            case 6:
                record["id"] = self.random.choice([record["id"].upper(), "alice", 7, record["id"].replace("-", "")])
            case 7 if self.chance(20):
                record["organization"] = "a" * self.random.choice([1020, 1030])  # no source has it
            case _:
                record.update({"0": "zero", "9": "nine", "1.0": "one", "": "none", "a.b": "ab", "{name": "brace"})


def document(made: list[Made]) -> dict[str, Any]:
    return {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [one.mapping for one in made]}


def join(parts: list[Tree]) -> Tree:
    return Tree(
        "".join(part.text for part in parts),
        lambda: "".join(part.sample() for part in parts),
        max((part.level for part in parts), default=0),
        sum(part.groups for part in parts),
    )
