"""What the documentation promises that we say of a mapping and an identity, and by which rows of its table it departs.

For the differential test: a small model on Python's `re`, which looks at the document and the record only.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

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


def is_account(name: str) -> bool:
    return name != "root" and ACCOUNT.fullmatch(name) is not None
