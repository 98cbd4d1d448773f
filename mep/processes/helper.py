"""A Python module of ours that runs as a process of its own, under an account without rights.

The monitor has two: `accounts.server` and `renderer.server`. Each is reached through one socket, which is its
descriptor 0; what it says on its standard output and error goes to the monitor's.
"""

from __future__ import annotations

import os
import socket
import sys

from mep.processes.supervised import NotStarted, SupervisedProcess
from mep.request.account import Account
from mep.request.launch_spec import LaunchSpec


class HelperUnavailable(Exception):
    """A helper cannot be started. The text says why and what to do; `exit_code` is one of os.EX_*."""

    def __init__(self, text: str, exit_code: int = os.EX_TEMPFAIL) -> None:
        super().__init__(text)
        self.exit_code = exit_code


async def start(module: str, account: Account, theirs: socket.socket) -> SupervisedProcess:
    """Runs `module` as the account, with `theirs` as its descriptor 0.

    Raises:
        HelperUnavailable: the launch was refused, or a step of it failed.
    """
    try:
        return await SupervisedProcess.start(_spec(module, account, theirs.fileno()))
    except NotStarted as e:
        raise HelperUnavailable(f"cannot start {module} as account {account.name!r}: {e}") from None


def _spec(module: str, account: Account, connection: int) -> LaunchSpec:
    return LaunchSpec(
        argv=(sys.executable, "-I", "-m", module),
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"},
        username=account.name,
        uid=account.uid,
        gid=account.gid,
        groups=(account.gid,),
        directory="/",
        log=None,
        descriptors={0: connection, 1: 2, 2: 2},
    )
