"""Can an ordinary user execute this program? Finds the folder or file that stands in the way.

The commonest mistake of an installation: a Python environment under root's home, or made from a Python that lives
there. Root can run it; no user endpoint can. Called at start for the interpreter and the user endpoint's program.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def obstacle(program: Path) -> str | None:
    """What keeps ordinary users from executing `program`, with the remedy; None when nothing does."""
    try:
        blocked = _blocked(program)
        if blocked:
            return f"{program} cannot be executed by ordinary users: {blocked}"
        interpreter = _interpreter(program)
    except OSError as e:
        return f"{program} cannot be executed: {e.strerror}"
    return obstacle(interpreter) if interpreter else None


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
