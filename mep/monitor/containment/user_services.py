"""Whether a process of a user can leave its scope: into the user's own systemd, where there can be one.

A user's systemd (`user@UID.service`, started by logind at a login, or for good with lingering) has a part of the
cgroups to itself, and systemd moves the user's own processes there at the user's word (AttachProcessesToUnit), from any
scope. What has been moved is held to none of our limits, and is ended with its user endpoint only where the kernel has
audit (`containment`). We cannot forbid it, so it is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_UNITS = ("user@.service", "systemd-logind.service")
_FOLDERS = tuple(Path(root, "systemd/system") for root in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))
"""Where systemd looks for units, in its order; the first counts."""


def note(folders: Sequence[Path] = _FOLDERS) -> str:
    """What does not hold for users whose own systemd runs, and the remedy; empty when there can be none."""
    if not all(_can_run(unit, folders) for unit in _UNITS):
        return ""
    return (
        "while a user's own systemd runs (user@.service: a login at the same time, or lingering), tasks of this user"
        " can move themselves out of their scope, where `resources` do not hold, and a stop finds them only where the"
        " kernel has audit; limit"
        " user-.slice too, and where nobody needs user@.service: systemctl mask user@.service"
    )


def _can_run(unit: str, folders: Sequence[Path]) -> bool:
    """Whether there is such a unit, and it is not masked: a link to /dev/null, or an empty file."""
    found = next((folder / unit for folder in folders if (folder / unit).exists()), None)
    return found is not None and found.resolve() != Path("/dev/null") and found.stat().st_size > 0
