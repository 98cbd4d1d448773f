"""Files that decide who becomes whom belong to root, and nobody else may change them, or the folders on their path.

Called for every file of a profile before it is read. A folder that others may write to is accepted only with the
sticky bit and when what it holds on the path belongs to root (`/tmp`): then others can add, but not replace.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_MAX_LINKS = 20


class Untrusted(Exception):
    """Somebody other than root could change what the path leads to. The text has the command that mends it."""


def check(path: Path) -> None:
    """Returns if only root can change what `path` leads to.

    Raises:
        Untrusted: with the offending part of the path and the remedy.
        OSError: a part of the path does not exist or cannot be read.
    """
    for part in _parts(path):
        status = os.lstat(part)
        if status.st_uid not in (0, os.geteuid()):
            raise Untrusted(f"{part} belongs to uid {status.st_uid}, not to root; mend it: chown root {part}")
        if stat.S_ISLNK(status.st_mode):
            continue  # the mode of a link means nothing; where it leads is checked as a part of its own
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if writable and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
            raise Untrusted(f"others than root may write to {part}; mend it: chmod go-w {part}")


def _parts(path: Path, links: int = 0) -> list[str]:
    """Every folder, link and file that `path` leads through, links followed."""
    if links > _MAX_LINKS:
        raise Untrusted(f"too many symbolic links on the way to {path}")
    parts = [*reversed(path.absolute().parents), path.absolute()]
    seen: list[str] = []
    for index, part in enumerate(parts):
        seen.append(str(part))
        if part.is_symlink():
            target = part.parent / part.readlink()
            rest = Path(os.path.normpath(target)).joinpath(*[p.name for p in parts[index + 1 :]])
            return seen + _parts(rest, links + 1)
    return seen
