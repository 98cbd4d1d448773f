"""Files that decide what root does: read if they are root's alone, else refused with the remedy.

Every part of the way to a file is looked at (`profile.trust`), and then it is opened by its path: between the two it
cannot become another file, because only root could change the way.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mep.profile import programs, trust
from mep.profile.errors import ConfigError


def check_folder(directory: Path) -> None:
    """Raises ConfigError if others than root may change what is in the folder, or is not there."""
    _status(directory, "make it")


def read_trusted(path: Path, remedy: str = "`mep configure` writes a commented one") -> str:
    """The text of a file that decides what root does: trusted, or refused. `remedy` is for one that is not there.

    Raises ConfigError.
    """
    check_file(path, remedy)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(path, [f"not UTF-8 text (byte {e.start}); save it as UTF-8"]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be read: {e.strerror}"]) from None


def check_program(program: Path) -> None:
    """Returns if nobody but root can change the program, or what executes it if it is a script. Raises ConfigError."""
    at = program
    try:
        for at in programs.chain(program):
            if not check_file(at, "it cannot be executed; install it, or correct its path").st_mode & 0o111:
                raise ConfigError(at, [f"is not executable; mend it: chmod a+rx {at}"])
    except OSError as e:
        raise ConfigError(at, [f"cannot be read: {e.strerror}"]) from None


def check_file(path: Path, remedy: str) -> os.stat_result:
    """The status of a file that only root can change. Raises ConfigError."""
    status = _status(path, remedy)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(path, ["is a folder, or another thing that is not a file; put a file there"])
    return status


def _status(path: Path, remedy: str) -> os.stat_result:
    try:
        return trust.check(path)
    except FileNotFoundError:
        raise ConfigError(path, [f"no such file; {remedy}"]) from None
    except trust.Untrusted as e:
        raise ConfigError(path, [str(e)]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be looked at: {e.strerror}"]) from None
