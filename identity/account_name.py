"""Is this text acceptable as the name of a local account?

    problem("alice")  -> None
    problem("root")   -> "'root' is the administrator's account"

The name is the last thing between an identity and a process under somebody's account, so the rule is narrow: a lower
case letter or `_`, then at most 31 of lower case letters, digits, `_`, `.` and `-`. That leaves out whatever another
program could read as a number, an option, a path, a shell word or two names. A bad name is refused, never repaired.

Accounts under the site's lowest uid and the service's own account are the caller's to refuse: that needs `getpwnam`.
"""

from __future__ import annotations

import string

from identity.printable import shown

MAX_LENGTH = 32
FORBIDDEN = frozenset({"root"})
_FIRST = frozenset(string.ascii_lowercase + "_")
_OTHERS = _FIRST | frozenset(string.digits + ".-")


def problem(name: str) -> str | None:
    """Says why `name` may not become an account, or None when it may."""
    if not name:
        return "the name is empty"
    if len(name) > MAX_LENGTH:
        return f"{shown(name, 40)} is longer than {MAX_LENGTH} characters"
    if name in FORBIDDEN:
        return f"{shown(name)} is the administrator's account"
    if name[0] not in _FIRST:
        return f"{shown(name)} does not begin with a lower case letter or '_'"
    bad = next((c for c in name if c not in _OTHERS), None)
    if bad is not None:
        return f"{shown(name)} holds {shown(bad)}; only lower case letters, digits, '_', '.' and '-' are accepted"
    return None
