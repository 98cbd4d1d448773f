"""Files that decide who becomes whom belong to root, and nobody else may change them, or the folders on their path.

Called for mapping documents and programs here, and by the manager for every file of a profile before it is read. A
folder that others may write to is accepted only with the sticky bit, as `/tmp` has it: there others can add, but only
an entry's owner can replace it, and the owner of each entry on the path is checked.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_MAX_LINKS = 20


class Untrusted(Exception):
    """Somebody other than root could change what the path leads to. The text has the command that mends it."""


def check(path: Path) -> os.stat_result:
    """Follows `path` from `/`, links included; the status of what it leads to.

    Root is trusted, and the account of this process, which for the manager is root too.

    Raises:
        Untrusted: with the offending part of the path and the remedy.
        OSError: a part of the path does not exist or cannot be looked at.
    """
    links, at, rest = 0, Path("/"), list(path.absolute().parts[1:])
    status = _check_part(at)
    while rest:
        name = rest.pop(0)
        at = at.parent if name == ".." else at / name
        status = _check_part(at)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise Untrusted(f"too many symbolic links on the way to {path}")
            target = at.readlink()
            at = Path("/") if target.is_absolute() else at.parent
            rest = [*(target.parts[1:] if target.is_absolute() else target.parts), *rest]
    return status


def _check_part(part: Path) -> os.stat_result:
    status = part.lstat()
    if status.st_uid not in (0, os.geteuid()):
        raise Untrusted(f"{part} belongs to uid {status.st_uid}, not to root; mend it: chown root {part}")
    if stat.S_ISLNK(status.st_mode):
        return status  # the mode of a link means nothing; where it leads is checked part by part
    sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_folder:
        raise Untrusted(f"others than root may write to {part}; mend it: chmod go-w {part}")
    return status
