"""Finds what is legal in a match text but probably not meant.

hints("^alice$") -> [("'^' is plain text ...", "leave it out ..."), ...]
"""

from __future__ import annotations

import json
from itertools import takewhile

from identity.pattern_syntax import ESCAPABLE, Alternation, Capture, Char, Concat, Node, Token, parse, tokens

_PLAIN_BUT_SUSPECT = "^$+[]{}"


def hints(match: str) -> list[tuple[str, str]]:
    """What a valid match text may not mean as written: pairs of (observation, suggestion)."""
    signs = list(tokens(match))
    better = _corrected(signs)
    instead = "" if better == match else f'; perhaps "match": {json.dumps(better, ensure_ascii=False)} is meant'
    found = []
    if any(_is_bare_dot(signs, at) for at in range(len(signs))):
        found.append(("'.' matches any character, not only a dot", f"write \\\\. in JSON for a dot{instead}"))
    found += [
        (
            f"{char!r} is plain text here, not an operator",
            f"leave it out unless the value really holds {char!r}{instead}",
        )
        for char in _PLAIN_BUT_SUSPECT
        if any(t.text == char for t in signs)
    ]
    if not _has_fixed_text(parse(match)[0]):
        found.append(("this accepts every value, of whatever domain", r"name the domain, as in (.*)@example\\.org"))
    if _top_level_branches(signs) and any(t.operator == "(" for t in signs):
        found.append(
            (
                "'|' between whole patterns leaves the groups of the losing sides unset",
                "write one mapping for each side",
            )
        )
    return found


def fixed_beginning(match: str) -> str:
    """The text that every matching value begins with, as far as that can be told."""
    signs = list(tokens(match))
    if _top_level_branches(signs):
        return ""
    fixed = takewhile(lambda token: token.operator is None, signs)
    text = "".join(token.text for token in fixed)
    repeated = len(text) < len(signs) and signs[len(text)].operator in ("*", "?")
    return text[:-1] if repeated else text


def _depth(signs: list[Token], at: int) -> int:
    """How many groups are open before that token."""
    return sum({"(": 1, ")": -1}.get(token.operator or "", 0) for token in signs[:at])


def _is_bare_dot(signs: list[Token], at: int) -> bool:
    """A `.` that stands alone: anywhere outside of groups, and in them where it looks like a part of a domain."""
    if signs[at].operator != ".":
        return False
    before = signs[at - 1] if at else None
    after = signs[at + 1] if at + 1 < len(signs) else None
    if after is not None and (after.operator in ("*", "?") or after.text == "+"):
        return False
    return _depth(signs, at) == 0 or (_is_plain_word(before) and _is_plain_word(after))


def _is_plain_word(token: Token | None) -> bool:
    return token is not None and token.operator is None and token.text.isalnum()


def _corrected(signs: list[Token]) -> str:
    """The match text as it was probably meant, as far as that can be told."""
    return "".join(_corrected_token(signs, at) for at in range(len(signs)))


def _corrected_token(signs: list[Token], at: int) -> str:
    token = signs[at]
    if token.operator is not None:
        return r"\." if _is_bare_dot(signs, at) else token.operator
    if (at == 0 and token.text == "^") or (at == len(signs) - 1 and token.text == "$"):
        return ""
    if token.text == "+" and at and signs[at - 1].operator == ".":
        return ".*"
    return f"\\{token.text}" if token.text in ESCAPABLE else token.text


def _has_fixed_text(node: Node) -> bool:
    """Whether every way to match needs some plain character besides @."""
    match node:
        case Char(char):
            return char != "@"
        case Concat(parts):
            return any(_has_fixed_text(part) for part in parts)
        case Alternation(branches):
            return all(_has_fixed_text(branch) for branch in branches)
        case Capture(_, body):
            return _has_fixed_text(body)
        case _:
            return False


def _top_level_branches(signs: list[Token]) -> bool:
    return any(token.operator == "|" and _depth(signs, at) == 0 for at, token in enumerate(signs))
