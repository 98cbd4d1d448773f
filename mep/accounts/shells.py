"""Does anybody log in with this shell? As getusershell(3) and sshd(8) see it.

Reads the system's list and looks at the program: either may wait for a disk.
"""

from __future__ import annotations

import os
import re
import stat

from mep.request.account import ShellFault

LISTS = ("/etc/shells", "/usr/etc/shells")
"""The first that exists counts; the second is where a distribution that keeps /etc for its admins has its own."""
WITHOUT_LIST = frozenset({"/bin/sh", "/bin/csh"})
"""What getusershell(3) takes when there is no list, or an empty one."""
_DEFAULT = "/bin/sh"
_ENTRY = re.compile(r"[^#/]*(/[^#\s]*)")


def fault(shell: str) -> ShellFault | None:
    """Why nobody logs in with `shell`; None when somebody may. An empty one means /bin/sh.

    Raises:
        OSError: there is a list, and it cannot be read.
    """
    shell = shell or _DEFAULT
    if shell not in listed():
        return ShellFault.UNLISTED
    try:
        mode = os.stat(shell).st_mode  # noqa: PTH116 - no pathlib, which loads more than all else here
    except OSError:
        return ShellFault.UNUSABLE
    return None if stat.S_ISREG(mode) and mode & 0o111 else ShellFault.UNUSABLE


def listed() -> frozenset[str]:
    """The system's login shells. Raises OSError when there is a list, and it cannot be read."""
    for file in LISTS:
        try:
            with open(file, encoding="utf-8", errors="surrogateescape") as shells:  # noqa: PTH123 - as above
                text = shells.read()
        except FileNotFoundError:
            continue
        found = frozenset(entry[1] for line in text.splitlines() if (entry := _ENTRY.match(line)))
        return found or WITHOUT_LIST
    return WITHOUT_LIST
