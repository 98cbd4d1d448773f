"""Can an ordinary user execute this program? Finds the folder or file that stands in the way.

The commonest mistake of an installation: a Python environment under root's home, or made from a Python that lives
there. Root can run it; no user endpoint can. Called at start for the interpreter and the user endpoint's program.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MAX_SCRIPTS = 5
"""Scripts that are each the interpreter of the next; the kernel follows no more."""


def obstacle(program: Path) -> str | None:
    """What keeps ordinary users from executing `program`, with the remedy; None when nothing does."""
    at = program
    try:
        for at in chain(program):
            if blocked := _blocked(at):
                return f"{at} cannot be executed by ordinary users: {blocked}"
    except OSError as e:
        return f"{at} cannot be executed: {e.strerror}"
    return None


def chain(program: Path) -> Iterator[Path]:
    """`program`, the interpreter in its first line if it is a script, the interpreter's own, and so on.

    Each is opened only when the next one is asked for, so look at it first: it may be no file at all.

    Raises OSError: a program cannot be read, or a script leads back to itself.
    """
    at: Path | None = program
    for _ in range(_MAX_SCRIPTS):
        if at is None:
            return
        yield at
        at = _interpreter(at)
    if at is not None:
        raise OSError(errno.ELOOP, "too many scripts that are each other's interpreters")


def _blocked(program: Path) -> str | None:
    resolved = program.resolve(strict=True)
    for path in (program, resolved):
        for folder in reversed(path.parents):
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                remedy = "install it where users can reach it, for example under /opt"
                return f"{folder} has mode {stat.S_IMODE(mode):04o}; {remedy}"
    mode = resolved.stat().st_mode
    if not stat.S_ISREG(mode) or mode & 0o005 != 0o005:
        return f"{resolved} has mode {stat.S_IMODE(mode):04o}; mend it: chmod a+rx {resolved}"
    return None


def _interpreter(program: Path) -> Path | None:
    """The program in the first line of a script."""
    with program.open("rb") as f:
        first = f.readline(4096)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].split()
    return Path(os.fsdecode(words[0])) if words else None
