"""Files that are ours until an admin edits them. Their first line has a checksum of the others, and says so."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hub.setup.steps import Found, SetupFailed, Step

_MARK = "# Written by mep-hub setup, which renews it until it is edited. Checksum of what follows: "


def put(path: Path, text: str, *, dry: bool) -> Step:
    """Writes `text` to `path` for everybody to read, unless an admin has edited what is there.

    Raises:
        SetupFailed: the file cannot be read or written.
    """
    wanted = _signed(text)
    try:
        there = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = None
    except (OSError, UnicodeDecodeError) as e:
        raise SetupFailed(f"{path}: cannot be read, {type(e).__name__}") from None
    if there == wanted:
        return Step(Found.RIGHT, str(path))
    if there is not None and _signed(there.partition("\n")[2]) != there:
        remedy = f"it was edited, so it is left alone; for ours: mv {path} {path}.old, then mep-hub setup"
        return Step(Found.EDITED, str(path), remedy)
    if not dry:
        write(path, wanted, 0o644, os.geteuid(), os.getegid())
    return Step(Found.DUE, str(path))


def write(path: Path, text: str, mode: int, uid: int, gid: int) -> None:
    """Writes the whole file or nothing; it has mode and owner from its first moment at `path` on.

    Raises:
        SetupFailed: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        new.rename(path)
    except OSError as e:
        raise SetupFailed(f"{path}: {e.strerror}") from None


def _signed(text: str) -> str:
    return f"{_MARK}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"
