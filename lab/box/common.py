"""What the modules of a box share: its names, the environment of its commands, and its error."""

from __future__ import annotations

import re

NAME = re.compile(r"mepbox-[a-z0-9]{1,12}")
"""The name of a box, which is that of its cgroups."""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
"""The variables of every command that is run for a box or in it."""


class BoxFailed(Exception):
    """The box did not boot or stop, or a command in it failed; the text has the end of what was said."""
