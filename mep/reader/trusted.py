"""Files that decide what root does: read if they are root's alone, else refused with the remedy.

Every part of the way to a file is looked at (`profile.trust`), and then it is opened by its path: between the two it
cannot become another file, because only root could change the way.
"""

from __future__ import annotations

from pathlib import Path

from mep.profile import places, trust
from mep.profile.errors import ConfigError


def check_folder(directory: Path) -> None:
    """Raises ConfigError if others than root may put something into the folder, which we write to, or it is missing."""
    trust.require(directory, "make it")
    places.check(directory)


def read_trusted(path: Path, remedy: str = "`mep configure` writes a commented one") -> str:
    """The text of a file that decides what root does: trusted, or refused. `remedy` is for one that is not there.

    Raises ConfigError.
    """
    trust.require_file(path, remedy)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(path, [f"not UTF-8 text (byte {e.start}); save it as UTF-8"]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be read: {e.strerror}"]) from None
