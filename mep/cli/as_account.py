"""Runs a module of ours as a user's account, in its home: root may see more of a home than its owner, or less.

`home_probe` and `user_log` call `start`; each is the program, too, that it has run. What that prints is a stranger's
text: the user may steer a process of that account.
"""

from __future__ import annotations

import contextlib
import os
import sys

from mep.processes.sealed_file import sealed
from mep.processes.supervised import SupervisedProcess
from mep.request.account import Account
from mep.request.launch_spec import LaunchSpec


async def start(
    account: Account, writing: int, module: str, *arguments: str, within: float | None = None
) -> SupervisedProcess:
    """Starts it, with nothing to read; what it prints goes to the descriptor `writing`.

    Raises:
        NotStarted: it cannot be started, or not within so many seconds, if there is a limit.
    """
    with contextlib.ExitStack() as stack:
        nothing = sealed("nothing", b"")
        stack.callback(os.close, nothing)
        spec = LaunchSpec(
            argv=(sys.executable, "-I", "-m", module, *arguments),
            environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            username=account.name,
            uid=account.uid,
            gid=account.gid,
            groups=account.groups,
            directory=account.home,
            log=None,
            descriptors={0: nothing, 1: writing, 2: writing},
        )
        return await SupervisedProcess.start(spec, within=within)
