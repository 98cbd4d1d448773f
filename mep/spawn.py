"""From a plan to a program that runs: folder, descriptors, fork, and the wait for the exec.

`children` calls `spawn`. The child is on record (state.json) as soon as it exists, before it is waited for: a manager
that dies meanwhile leaves its successor something to find.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

from mep import reach, reaping
from mep.command import StartEndpoint
from mep.credentials import CredentialFile
from mep.lifecycle import State
from mep.plan import CREDENTIALS_FD, REPORT_FD, LaunchPlan
from mep.privileged.launch import LaunchFailure, Started, start
from mep.privileged.spec import LaunchRefused
from mep.process import Process
from mep.refusal import Refused
from mep.report import read_report
from mep.state import Child, make_folder, writing_end

EXEC_TIMEOUT = 30.0
"""Seconds from fork to exec: the user's home may lie on a file system that answers slowly, or never."""

_FOR_USER = "This endpoint could not start a process for you; please tell its administrators."


async def spawn(plan: LaunchPlan, command: StartEndpoint, folder: Path, state: State) -> Child:
    """Starts a user endpoint, with `folder` for what is on record of it; returns once its program has been executed.

    state: what it is in then.

    Raises:
        Refused: stage `launch`; the step that failed is named. Nothing is left behind.
    """
    try:
        return await _spawn(plan, command, folder, state)
    except OSError as e:
        raise Refused("launch", f"{folder} cannot be written: {e}", _FOR_USER) from None


async def _spawn(plan: LaunchPlan, command: StartEndpoint, folder: Path, state: State) -> Child:
    with contextlib.ExitStack() as undo:
        pipe = make_folder(folder)
        undo.callback(shutil.rmtree, folder)
        undo.callback(os.close, pipe)
        credentials = CredentialFile.create(folder / "credentials", command.credentials)
        started = _fork(plan, credentials, folder)
        undo.callback(_discard, started)
        with contextlib.ExitStack() as unheard:
            unheard.callback(os.close, started.report)
            child = Child(
                command=command,
                account=plan.account,
                process=Process.of(started.pid, plan.account.uid),
                folder=folder,
                credentials=credentials,
                pidfd=started.pidfd,
                pipe=pipe,
                started=time.monotonic(),
                state=state,
            )
            child.save()
            unheard.pop_all()
        await _executed(started, plan)
        child.executed = True
        child.save()
        undo.pop_all()
    return child


def _fork(plan: LaunchPlan, credentials: CredentialFile, folder: Path) -> Started:
    with contextlib.ExitStack() as ours:
        ours.callback(os.close, stdin := _handover_file(plan, credentials))
        ours.callback(os.close, credential_file := credentials.open_for_reading())
        ours.callback(os.close, report := writing_end(folder))
        try:
            return start(plan.spec({0: stdin, CREDENTIALS_FD: credential_file, REPORT_FD: report}))
        except (LaunchRefused, OSError) as e:
            raise Refused("launch", f"not started: {e}", _FOR_USER) from None


def _handover_file(plan: LaunchPlan, credentials: CredentialFile) -> int:
    """The hand-over as a sealed file in memory: unlike a pipe it has no limit, and nobody has to wait to write it."""
    handover = {
        **plan.handover,
        "ep_info": {**plan.handover["ep_info"], "posix_ppid": os.getpid()},
        "mem_fd": CREDENTIALS_FD,
        "enckey": credentials.key,
        "report_fd": REPORT_FD,
    }
    descriptor = os.memfd_create("handover", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(json.dumps(handover).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


async def _executed(started: Started, plan: LaunchPlan) -> None:
    """Returns once the program has been executed; raises Refused when a step before failed, or took too long."""
    try:
        failure = await asyncio.wait_for(read_report(started.report), EXEC_TIMEOUT)
    except asyncio.TimeoutError:
        failure = LaunchFailure("home or log", 0, f"no answer within {EXEC_TIMEOUT:g} s; is the home reachable?")
    if failure is not None:
        raise _launch_refused(failure, plan)


def _discard(started: Started) -> None:
    """Kills a child that has not been executed, and reaps it when it ends: it may hang in a file system for long."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(started.pidfd, signal.SIGKILL)
    reaping.forget(started.pid, started.pidfd)


def _launch_refused(failure: LaunchFailure, plan: LaunchPlan) -> Refused:
    admin = f"account {plan.account.name!r}: step {failure.step!r} failed: {failure.text}"
    if failure.step == "exec":
        admin += f" ({reach.obstacle(Path(plan.argv[0])) or plan.argv[0]})"
    if failure.step in ("home", "log"):
        what = "entered" if failure.step == "home" else "written to"
        return Refused(
            "launch", f"{admin} ({plan.account.home})", f"Your home folder cannot be {what}: {failure.text}."
        )
    return Refused("launch", admin, _FOR_USER)
