"""Strings of strangers as a template sees them: JSON text, quotes included.

`encode` turns every string, keys included, into JSON text: printed where a template prints a value, it is one YAML
scalar, whatever it holds. `encode_account` does so with what people may say of themselves in their own account (chfn,
a directory with self-service). Used in a child of the render server.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

_HARMLESS_PATH = re.compile(r"/[A-Za-z0-9_./@+-]*")
"""One plain string to YAML and one word to a shell, also with a name before it or behind it."""
_NO_ASTRAL = re.compile("[^\U00010000-\U0010ffff]+")


class Encoded(str):
    """A string as JSON text, quotes included. Inside a printed list or object it is one YAML scalar as well."""

    __slots__ = ()

    def __repr__(self) -> str:  # Python's own escapes ' with a backslash, which ends a string in YAML
        return "'" + self.replace("'", "''") + "'"


class Key(Encoded):
    """A key of an object. As text it is JSON; compared and looked up, it is the plain key.

    So `{{ k }}`, `k ~ x`, `k | join` and every filter see the encoded form, and `d.key`, `d["key"]`, `d[k]`,
    `k == "key"` go by the plain one.
    """

    _plain: str  # the sandbox keeps templates away from names like this

    def __new__(cls, plain: str) -> Key:
        made = super().__new__(cls, _json(plain))
        made._plain = plain
        return made

    def __eq__(self, other: object) -> bool:
        return self._plain == (other._plain if isinstance(other, Key) else other)

    def __ne__(self, other: object) -> bool:  # str has one of its own, which would see the JSON text
        return not self == other

    def __hash__(self) -> int:
        return hash(self._plain)


def encode(value: Any) -> Any:
    """Strings as `Encoded`, keys as `Key`, null for None; other values as they are.

    `value` is what a JSON document gives, nested less deeply than Python's stack is high.
    """
    if isinstance(value, dict):
        return {Key(key): encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, str):
        return Encoded(_json(value))
    return "null" if value is None else value


def encode_account(account: Mapping[str, Any]) -> dict[str, Any]:
    """An account with `gecos` as `Encoded`; `shell` and `dir` too, unless they are as paths usually are.

    Templates of the public package put such a path into the midst of other text. Name and numbers have been checked.
    """
    return {
        key: encode(value) if key == "gecos" or (key in ("shell", "dir") and not _harmless(value)) else value
        for key, value in account.items()
    }


def encode_environment(variables: Mapping[str, str], account: Mapping[str, Any]) -> dict[str, str]:
    """Variables of a user endpoint; those that have the account's own paths, as `encode_account` gives these."""
    own = {account[key]: value for key, value in encode_account(account).items() if key in ("shell", "dir")}
    return {name: own.get(value, value) for name, value in variables.items()}


def _harmless(value: object) -> bool:
    return isinstance(value, str) and _HARMLESS_PATH.fullmatch(value) is not None


def to_json(value: Any, **options: Any) -> str:
    """What the filter `tojson` calls: a key becomes JSON once, not twice."""
    return json.dumps(_with_plain_keys(value), **options)


def _with_plain_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key._plain if isinstance(key, Key) else key: _with_plain_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_keys(item) for item in value]
    return value._plain if isinstance(value, Key) else value


def shell_escape(value: Any) -> Any:
    """Jinja filter: an encoded string as one word for a shell. Other values pass unchanged, harmless paths too."""
    if _harmless(value):
        return value
    decoded = json.loads(value) if isinstance(value, str) else value
    return Encoded(_json(shlex.quote(decoded))) if isinstance(decoded, str) else value


def _json(text: str) -> str:
    """JSON that YAML reads as the same text: no pairs of surrogates, and DEL, which YAML forbids, as an escape."""
    body = _NO_ASTRAL.sub(lambda run: json.dumps(run[0])[1:-1], text)
    return '"' + body.replace("\x7f", "\\u007f") + '"'
