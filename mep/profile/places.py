"""The folders that we write to are ours alone: nobody else can have put anything there, or can put it there next.

A folder that variables or the profile name may be one that others write to. Whoever can make a name in it has root
write through links of theirs, believe records of theirs, and lose files to them. So, more strictly than `trust`, which
is for what is only read:

    the sticky bit counts on the way to a folder, where it keeps the folder itself; never for the folder
    what does not exist yet is to be made in such a folder, too
    `check_all` looks at all that is in it: what others put there while they could does not become ours by a chmod

Called by every command before it reads or writes there, so that all of them say the same. Ours is what belongs to root,
or to the account of this process.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mep.profile import trust
from mep.profile.errors import ConfigError, ConfigErrors

if TYPE_CHECKING:  # the writer of the audit trail has no other use for it, and it loads `dataclasses`
    from mep.profile.paths import Paths


def check_run(paths: Paths, name: str) -> None:
    """Where the state of the manager and its user endpoints lies. Raises as `check` does."""
    check(paths.run)
    check_all(paths.run / name)


def check_state(paths: Paths) -> None:
    """Where the stored login lies. Raises as `check` does."""
    check(paths.state)
    for file in paths.state.glob("storage.db*"):
        check_file(file)


def check_profile(paths: Paths, directory: Path) -> None:
    """All places that the manager of the profile in `directory` writes to, but those that config.yaml names.

    Raises:
        ConfigError: with all that is wrong.
    """
    log = paths.log_file(directory)
    looks: tuple[Callable[[], None], ...] = (
        lambda: check_run(paths, directory.name),
        lambda: check_state(paths),
        lambda: check_all(paths.kept(directory.name)),
        lambda: check_all(paths.orders(directory.name)),
        lambda: check(log.parent, _SYSTEM_LOG),
        lambda: check_file(log, _SYSTEM_LOG),
    )
    problems = []
    for look in looks:
        try:
            look()
        except ConfigError as e:
            problems.append(str(e))
        except PermissionError as e:
            problems.append(f"{e.filename}: cannot be looked at: {e.strerror}")
    if problems:
        raise ConfigErrors(list(dict.fromkeys(problems)))


_SYSTEM_LOG = Path("/var/log")


def check(folder: Path, system: Path | None = None) -> None:
    """Returns if nobody but us can put anything into the folder, or where it is to be made.

    system: as `trust.check` takes it.

    Raises:
        ConfigError: others can, with owner or mode, and the remedy.
        PermissionError: only another account may look.
    """
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    try:
        status = trust.check(there, system)
    except trust.Untrusted as e:
        raise ConfigError(folder, [str(e)]) from None
    except PermissionError:
        raise
    except OSError as e:
        raise ConfigError(folder, [f"cannot be looked at: {e.strerror}; remove it, or name another folder"]) from None
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(folder, [f"{there} is no folder; remove it, or name another folder"])
    if trust.others_write(status):
        remedy = f"make the folder first: mkdir -p -m 0700 {shlex.quote(str(folder))}" if there != folder else _OWN
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}; that it is sticky does not keep them from adding files"
        raise ConfigError(folder, [f"others than {trust.WHO} may write to {there} ({mode}); {remedy}"])


_OWN = f"name a folder of its own, which only {trust.WHO} may write to"


def check_all(folder: Path) -> None:
    """The same, and all that is in the folder is ours. Raises as `check` does."""
    check(folder)
    left = [folder] if folder.is_dir() else []
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                _check_entry(Path(entry.path))
                if entry.is_dir(follow_symlinks=False):
                    left.append(Path(entry.path))


def check_file(path: Path, system: Path | None = None) -> None:
    """A file that we write to, if it is there: it is ours, and so is what it leads to if it is a link of ours.

    Raises:
        ConfigError: others can change it, or what it leads to.
        PermissionError: only another account may look.
    """
    try:
        status = trust.check(path, system)
    except FileNotFoundError:
        return
    except trust.Untrusted as e:
        raise ConfigError(path, [str(e)]) from None
    if problem := _names(status):
        raise ConfigError(path, [problem])


def _check_entry(path: Path) -> None:
    """Something in a folder that only we have ever had to do with."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return  # removed meanwhile, by us
    problem = _names(status)
    if stat.S_ISLNK(status.st_mode):
        problem = "is a link, and we make none here"
    elif status.st_uid not in (0, os.geteuid()):
        problem = f"belongs to uid {status.st_uid}, not to {trust.WHO}"
    elif trust.others_write(status) and not stat.S_ISSOCK(status.st_mode):
        problem = f"others than {trust.WHO} may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    if problem:
        remedy = f"somebody else may have put it there; look at it, and remove it: rm -r {shlex.quote(str(path))}"
        raise ConfigError(path, [f"{problem}; {remedy}"])


def _names(status: os.stat_result) -> str | None:
    """A second name of a file may be one that others have made for a file of root's."""
    return f"has {status.st_nlink} names (hard links)" if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 else None
