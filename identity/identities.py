"""The identity set of a request: checked, normalised and filtered before any mapping sees it.

    read([{"id": "...", "username": "alice@example.org", "status": "used"}]) -> (identities, passed over)

A set that is malformed as a whole, too large, contradictory or hostile (control characters, lone surrogates) refuses
the request. A single record without a usable id, and one whose `status` is neither `used` nor `private`, is passed
over and the others go on: an identity that was linked but never logged in with proves nothing about its owner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from identity.printable import shown

MAX_IDENTITIES = 64
MAX_FIELD = 1024
"""Longest text, key or value, in characters."""
MAX_VALUES = 256
"""Most keys and values, nested ones included, in one record."""
MAX_RECORD = 16384
"""Most characters in the keys and values of one record."""
MAX_DEPTH = 8
MAX_NUMBER = 1 << 63
_USABLE = frozenset({"used", "private"})
_UUID = re.compile("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class SetRefused(ValueError):
    """The identity set is not acceptable; the text is for the administrator."""


@dataclass(frozen=True)
class Identity:
    """One usable record. `id` is lower case, and so is the `id` in `fields`, which are otherwise as received."""

    id: str
    fields: Mapping[str, object] = field(hash=False)


@dataclass(frozen=True)
class PassedOver:
    """An identity that a rule, or every rule, was not applied to: which, where and why.

    identity: the id, or `record N` for a record without one. where: the rule or document; "identity set" at entry.
    """

    identity: str
    where: str
    reason: str


def canonical_id(value: object) -> str | None:
    """The id in lower case if it is a UUID in its usual form, 8-4-4-4-12 hexadecimal digits; else None."""
    return value.lower() if isinstance(value, str) and _UUID.fullmatch(value) else None


def read(identity_set: object) -> tuple[list[Identity], list[PassedOver]]:
    """The usable identities in their order, and the others.

    Raises:
        SetRefused: no list; too many; one id with differing records; unacceptable text in a usable record.
    """
    if not isinstance(identity_set, list):
        raise SetRefused(f"the identity set is not a list but {type(identity_set).__name__}")
    if len(identity_set) > MAX_IDENTITIES:
        raise SetRefused(f"the identity set holds {len(identity_set)} records; at most {MAX_IDENTITIES} are accepted")
    usable: dict[str, Identity] = {}
    skipped: list[PassedOver] = []
    seen: dict[str, Mapping[str, object]] = {}
    for number, record in enumerate(identity_set, 1):
        found = _read_record(number, record)
        if isinstance(found, PassedOver):
            skipped.append(found)
            continue
        if found.id in seen and not _same(seen[found.id], found.fields):
            raise SetRefused(f"the identity set holds differing records with the id {found.id}")
        seen[found.id] = found.fields
        if _status(found.fields):
            usable.setdefault(found.id, found)
        else:
            skipped.append(PassedOver(found.id, "identity set", "its status is neither 'used' nor 'private'"))
    for identity in usable.values():
        if not _is_plain(identity.fields):
            _check_texts(identity)
    return list(usable.values()), skipped


def _is_plain(fields: Mapping[str, object]) -> bool:
    """What nearly every record is, seen at a glance: a few short texts that can be printed, and nulls."""
    values = [value for value in fields.values() if value is not None]
    try:
        text = "".join(values) + "".join(fields)  # type: ignore[arg-type]
    except TypeError:  # a value of another kind
        return False
    return len(text) <= MAX_FIELD and len(fields) <= MAX_VALUES // 2 and text.isprintable()


def _read_record(number: int, record: object) -> Identity | PassedOver:
    if not isinstance(record, dict):
        return PassedOver(f"record {number}", "identity set", "the record is not an object")
    identity_id = canonical_id(record.get("id"))
    if identity_id is None:
        return PassedOver(f"record {number}", "identity set", "the record has no id that is a UUID")
    if any(isinstance(value, (dict, list)) for value in record.values()):
        _check_depth(identity_id, record)
    return Identity(identity_id, {**record, "id": identity_id})


def _check_depth(identity_id: str, record: object) -> None:
    """Keeps everything after it free to recurse. No real record is deeper than two levels."""
    level = [record]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise SetRefused(f"identity {identity_id}: the record is nested more than {MAX_DEPTH} levels deep")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _status(fields: Mapping[str, object]) -> bool:
    status = fields.get("status")
    return isinstance(status, str) and status in _USABLE


def _same(one: object, other: object) -> bool:
    """Equality that tells 1, 1.0 and true apart."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def _check_texts(identity: Identity) -> None:
    size = 0
    for count, value in enumerate(_values(identity.fields), 1):
        text = value if isinstance(value, str) else ""
        size += len(text)
        reason = None if isinstance(value, (dict, list)) else _unacceptable(value, text)
        if reason is None and (count > MAX_VALUES or size > MAX_RECORD):
            reason = f"the record is larger than {MAX_VALUES} values or {MAX_RECORD} characters"
        if reason is not None:
            raise SetRefused(f"identity {identity.id}: {reason}")


def _unacceptable(value: object, text: str) -> str | None:
    if not isinstance(value, (str, int, float, bool, type(None))):
        return f"a value of type {type(value).__name__} is not JSON"
    if isinstance(value, (int, float)) and not abs(value) < MAX_NUMBER:
        return "a number is not finite, or too large"
    if len(text) > MAX_FIELD:
        return f"a field is longer than {MAX_FIELD} characters"
    bad = next((c for c in text if _is_control(c)), None)
    return None if bad is None else f"a field holds the control character or lone surrogate {shown(bad)}: {shown(text)}"


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff"


def _values(value: object) -> Iterator[object]:
    """All keys and values, objects and lists included: empty ones take memory too. Without recursion."""
    todo = [value]
    while todo:
        value = todo.pop()
        yield value
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            todo += value
