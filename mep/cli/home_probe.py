"""Can an account enter its home and write there, as a user endpoint has to? For `mep explain`; nothing is left behind.

`look` runs this file as a program, as the account.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from mep.cli import as_account
from mep.processes.bounded_output import BoundedOutput
from mep.processes.printable import escaped
from mep.processes.supervised import NotStarted, SupervisedProcess
from mep.processes.time_limit import within
from mep.request.account import Account
from mep.request.launch_plan import LaunchPlan
from mep.request.refusal import Refused

TIME_LIMIT = 20.0
"""Seconds in which a home must answer."""
_SIZE = 65536
"""Bytes that are written, and gone again: a log and a task or two."""


async def look(plan: LaunchPlan) -> None:
    """Returns if the account of the plan can enter its home and write there.

    Raises:
        Refused: stage `launch`; it cannot.
    """
    try:
        with BoundedOutput(_SIZE) as out:
            process = await within(TIME_LIMIT, _start(plan.account, out))
            try:
                ended = await process.wait(TIME_LIMIT)
            finally:
                await process.end()
            said = escaped(out.rest().decode("utf-8", "replace").strip())
    except asyncio.TimeoutError:
        ended, said = False, ""
    except NotStarted as e:
        if e.step == "home" and plan.pam is not None and not Path(plan.account.home).exists():
            return  # PAM may make it at the first session
        raise _refused(plan, "entered" if e.step == "home" else "tried", str(e.reason)) from None
    if not ended:
        raise _refused(plan, "reached", f"no answer within {TIME_LIMIT:g} s")
    if said:
        raise _refused(plan, "written to", said)


async def _start(account: Account, out: BoundedOutput) -> SupervisedProcess:
    try:
        return await as_account.start(account, out.writing, "mep.cli.home_probe")
    finally:
        out.started()


def _refused(plan: LaunchPlan, what: str, why: str) -> Refused:
    admin = f"account {plan.account.name!r}: the home {plan.account.home} cannot be {what}: {why}"
    return Refused("launch", admin, f"Your home folder cannot be {what}: {why}.")


def write_something(folder: Path) -> None:
    """Into a file without a name, which is gone at once. Raises OSError, for example when the disk is full."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * _SIZE)
        file.flush()
        os.fsync(file.fileno())


def _main() -> None:
    """As the account, in its home: says what is wrong, if anything."""
    ours = Path(".globus_compute")
    try:
        write_something(ours if ours.is_dir() else Path())
    except OSError as e:
        print(e.strerror)


if __name__ == "__main__":
    _main()
