"""Can an ordinary user execute this program? Finds the folder or file that stands in the way.

The commonest mistake of an installation: a Python environment under root's home, or made from a Python that lives
there. Root can run it; no user endpoint can. Called at start for the interpreter and the user endpoint's program.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where `env` finds interpreters."""
_MAX_SCRIPTS = 5
"""Scripts that are each the interpreter of the next; the kernel follows no more."""


def is_our_user_endpoint(command: Sequence[str]) -> bool:
    """Whether a `uep_command` runs our user endpoint, perhaps through a wrapper: it has that name."""
    return any(Path(word).name == "mep-uep" for word in command)


def obstacle(program: Path) -> str | None:
    """What keeps ordinary users from executing `program`, with the remedy; None when nothing does."""
    at = program
    try:
        for at in chain(program):
            if os.geteuid() != 0:  # our own are all that we start
                blocked, by = None if os.access(at, os.X_OK) else "permission denied", "you"
            else:
                blocked, by = _blocked(at), "ordinary users"
            if blocked:
                return f"{at} cannot be executed by {by}: {blocked}"
    except OSError as e:
        return f"{at} cannot be executed: {e.strerror}"
    return None


def chain(program: Path, arguments: Sequence[str] = ()) -> Iterator[Path]:
    """`program`, the interpreter in its first line if it is a script, the interpreter's own, and so on.

    What `env` executes is one of them: it finds by itself what its arguments name.

    Each is opened only when the next one is asked for, so look at it first: it may be no file at all.

    Raises OSError: a program cannot be read, or a script leads back to itself.
    """
    words: Sequence[str] = (str(program), *arguments)
    for _ in range(2 * _MAX_SCRIPTS):  # each may be found by `env`
        if not words:
            return
        at = Path(words[0])
        yield at
        words = _found_by_env(words[1:]) if at.name == "env" else _first_line(at)
    if words:
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


def _first_line(program: Path) -> list[str]:
    """The interpreter of a script, and its arguments."""
    with program.open("rb") as f:
        first = f.readline(4096)
    return [os.fsdecode(word) for word in first[2:].split()] if first.startswith(b"#!") else []


def _found_by_env(words: Sequence[str]) -> list[str]:
    """What `env` executes: the first of its arguments that is neither an option nor a variable."""
    for number, word in enumerate(words):
        if not word.startswith("-") and "=" not in word and (found := shutil.which(word, path=PATH)):
            return [found, *words[number + 1 :]]
    return []
