"""What may be the name of a local account. The one place that says so: whoever has a name in hand asks here.

    problem("alice")                                          -> None
    problem("root")                                           -> "'root' is the administrator's account"
    problem("Alice@ad.example.org")                           -> "'Alice@ad.example.org' does not begin with ..."
    problem("Alice@ad.example.org", directory_names=True)     -> None

The name is the last thing between an identity and a process under somebody's account. A bad name is refused, never
repaired. The usual form is narrow: a lower case letter or `_`, then at most 31 of lower case letters, digits, `_`, `.`
and `-`. Directories (LDAP, Active Directory) have more: `directory_names` takes letters of both cases, digits in front,
`@`, and 255 characters, for a site that says so. What no name ever holds, and what would come of it:

    NUL, newline, other control characters     the end of a string of C (PAM), of a line of a log, of a variable
    `/`, and `.` in front                      another folder than the one in `/scratch/NAME`; a hidden one
    `-` or `@` in front                        an option of a program; a list of names, as netgroups are
    `:` `,` `*` `!` `#` `%` `+` `~` spaces     two names, or all, in passwd(5), lists, access rules; a comment
    quotes, `\\`, `$` `;` `&` `|` `<` `>`       other words than the name to a shell
    brackets                                   other text to a template, and to YAML
    letters beyond ASCII                       a name that looks like another one
    what is a number or a date as a whole      a uid (`1000`) to chown(1) and setpriv(1); no text (`1e5`) to YAML
    more than 255 characters                   no name at all: LOGIN_NAME_MAX

Whether an account of the name exists, and is called exactly so, is what the name service says. Accounts under the
site's lowest uid and the service's own account are the caller's to refuse: that needs `getpwnam`.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from identity.printable import shown

FORBIDDEN = frozenset({"root"})
"""In upper case, too."""
_NUMBER = re.compile(
    r"0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9._-]*(?:e-?[0-9][0-9_]*)?|[0-9-]+t[0-9.-]+z?", re.IGNORECASE
)
"""What some program reads as a number or a time: `1000`, `1.5`, `1_000`, `1e5`, `0x1f`, `2026-01-31`."""


@dataclass(frozen=True)
class _Form:
    """Characters that a name may begin with, and further ones; how many; and the first two in words."""

    first: frozenset[str]
    others: frozenset[str]
    longest: int
    begins: str
    holds: str


_LOWER, _ANY = frozenset(string.ascii_lowercase + "_"), frozenset(string.ascii_letters + string.digits + "_")
_USUAL = _Form(
    _LOWER,
    _LOWER | frozenset(string.digits + ".-"),
    32,
    "a lower case letter or '_'",
    "lower case letters, digits, '_', '.' and '-'",
)
_OF_DIRECTORIES = _Form(
    _ANY, _ANY | frozenset(".-@"), 255, "a letter, a digit or '_'", "letters, digits, '_', '.', '-' and '@'"
)


def problem(name: str, *, directory_names: bool = False) -> str | None:
    """Says why `name` may not become an account, or None when it may.

    directory_names: what only directories have is taken, too. Where it would be, the answer names that word.
    """
    never = _problem(name, _OF_DIRECTORIES)
    if directory_names or never is not None:
        return never
    usual = _problem(name, _USUAL)
    return None if usual is None else f"{usual} (unless accounts.directory_names is set)"


def _problem(name: str, form: _Form) -> str | None:
    if not name:
        return "the name is empty"
    if len(name) > form.longest:
        return f"{shown(name, 40)} is longer than {form.longest} characters"
    if name.lower() in FORBIDDEN:
        return f"{shown(name)} is the administrator's account"
    if name[0] not in form.first:
        return f"{shown(name)} does not begin with {form.begins}"
    bad = next((c for c in name if c not in form.others), None)
    if bad is not None:
        return f"{shown(name)} holds {shown(bad)}; only {form.holds} are accepted"
    if _NUMBER.fullmatch(name):
        return f"{shown(name)} is a number, or a time, to other programs"
    return None
