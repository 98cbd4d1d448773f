"""Files that decide what root does belong to root, and nobody else may change them, or the folders on their path.

Called for every file of a profile before it is read, and for programs before they are executed, in the manager and in
the commands of admins; for folders that we write to, `places` asks more. A folder on the way that others may write to
is accepted only with the sticky bit, as `/tmp` has it: there others can add, but only an entry's owner can replace it,
and the owner of each entry on the path is checked.

Whoever opens the path after this opens what was looked at: nobody else can change what any part of it leads to. An
access control list that lets others write shows as write permission of the group, and is refused as such.
"""

from __future__ import annotations

import functools
import grp
import os
import pwd
import shlex
import stat
from pathlib import Path

from mep.profile.errors import ConfigError

WHO = "root" if os.geteuid() == 0 else "you or root"
"""Who may change what decides what we do."""
_MAX_LINKS = 20


class Untrusted(Exception):
    """Somebody other than root could change what the path leads to. The text has the command that mends it."""


def check(path: Path, system: Path | None = None) -> os.stat_result:
    """Follows `path` from `/`, links included; the status of what it leads to.

    Root is trusted, and the account of this process, which for the manager is root too.

    system: a folder on the way whose group the distribution lets write there, as some do for /var/log.

    Raises:
        Untrusted: with the offending part of the path and the remedy.
        OSError: a part of the path does not exist or cannot be looked at.
    """
    links, at, rest = 0, Path("/"), list(path.absolute().parts[1:])
    status = _check_part(at, system)
    while rest:
        name = rest.pop(0)
        at = at.parent if name == ".." else at / name
        status = _check_part(at, system)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise Untrusted(f"too many symbolic links on the way to {path}")
            target = at.readlink()
            at = Path("/") if target.is_absolute() else at.parent
            rest = [*(target.parts[1:] if target.is_absolute() else target.parts), *rest]
    return status


def require(path: Path, remedy: str) -> os.stat_result:
    """The same for what a profile needs. `remedy` is for what is not there. Raises ConfigError."""
    try:
        return check(path)
    except FileNotFoundError:
        raise ConfigError(path, [f"no such file; {remedy}"]) from None
    except Untrusted as e:
        raise ConfigError(path, [str(e)]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be looked at: {e.strerror}"]) from None


def require_file(path: Path, remedy: str) -> os.stat_result:
    """The same for a file, and nothing else. Raises ConfigError."""
    status = require(path, remedy)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(path, ["is a folder, or another thing that is not a file; put a file there"])
    return status


def _check_part(part: Path, system: Path | None) -> os.stat_result:
    status = part.lstat()
    link, name = stat.S_ISLNK(status.st_mode), shlex.quote(str(part))
    if status.st_uid not in (0, os.geteuid()):
        remedy = f"mend it: chown {'-h ' if link else ''}root {name}" if os.geteuid() == 0 else "name one of yours"
        raise Untrusted(f"{part} belongs to uid {status.st_uid}, not to {WHO}; {remedy}")
    if link:
        return status  # the mode of a link means nothing; where it leads is checked part by part
    sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if others_write(status, part == system) and not sticky_folder:
        raise Untrusted(f"others than {WHO} may write to {part}; mend it: chmod go-w {name}")
    return status


def others_write(status: os.stat_result, of_the_system: bool = False) -> bool:
    """Whether others than root and we may write there. A group that is an ordinary user's own has nobody else in it."""
    trusted_group = of_the_system or (os.geteuid() != 0 and status.st_gid == _private_group())
    return bool(status.st_mode & (stat.S_IWOTH if trusted_group else stat.S_IWGRP | stat.S_IWOTH))


@functools.cache
def _private_group() -> int | None:
    """Our primary group, if it is for us alone: it has our name, no members (as useradd makes them), and is nobody
    else's primary group, as far as the name service lists accounts."""
    try:
        account, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    except KeyError:
        return None
    if group.gr_name != account.pw_name or not set(group.gr_mem) <= {account.pw_name}:
        return None
    of_others = any(each.pw_gid == group.gr_gid and each.pw_uid != account.pw_uid for each in pwd.getpwall())
    return None if of_others else group.gr_gid
