"""From a plan to a program that runs: folder, descriptors, fork, the gate, and the wait for the exec.

`table` calls `spawn`. The child is on record (state.json) as soon as it exists, before it is waited for: a manager
that dies meanwhile leaves its successor something to find. It is held until it is where it belongs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mep.monitor.endpoints import record, run_folder
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.privileged.launch import LaunchFailure, Started, release, start
from mep.privileged.session import PamError
from mep.privileged.spec import LaunchRefused
from mep.processes import reaping, report
from mep.processes.pidfd import send_signal
from mep.processes.process import Process
from mep.processes.time_limit import within
from mep.profile import programs
from mep.request.launch_plan import AUDIT_FD, CREDENTIALS_FD, REPORT_FD, LaunchPlan
from mep.request.launch_spec import LaunchSpec
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint

EXEC_TIMEOUT = 30.0
"""Seconds from the gate to exec: the user's home may lie on a file system that answers slowly, or never."""
PAM_TIMEOUT = 30.0
"""Seconds from fork to the gate: the name service is asked, and PAM."""

_FOR_USER = "This endpoint could not start a process for you; please tell its administrators."


class Place(Protocol):
    """The place that a start holds while it is under way: `stages.fair_queue`."""

    def at_own_risk(self) -> None:
        """From now on nothing but what is its account's can hold the start up."""

    def until(self, ended: asyncio.Future[None]) -> None:
        """The start has failed, and its process is there until `ended`."""


class _NoPlace:
    """Of a start that is not counted."""

    def at_own_risk(self) -> None:
        return

    def until(self, ended: asyncio.Future[None]) -> None:
        return


NO_PLACE: Place = _NoPlace()


async def spawn(
    plan: LaunchPlan,
    command: StartEndpoint,
    folder: Path,
    state: State,
    rlimits: Mapping[int, int],
    while_held: Callable[[UserEndpoint], Awaitable[None]],
    place: Place = NO_PLACE,
) -> UserEndpoint:
    """Starts a user endpoint, with `folder` for what is on record of it; returns once its program has been executed.

    command: its credentials are sealed with a key of its own. state: what it is in then. while_held: called when the
    process exists and waits, still root, before it has touched anything of the account's; what it raises ends the
    launch. place: told when the gate opens, and when the process of a start that failed is still there: no signal ends
    one that hangs in its user's file system.

    Raises:
        Refused: stage `launch`, with the step that failed, or whatever `while_held` raises. Nothing is left behind.
    """
    try:
        with contextlib.ExitStack() as always, contextlib.ExitStack() as undo:
            undo.callback(run_folder.remove, folder)
            pipe, audit = run_folder.make(folder, audited=plan.audited)
            undo.callback(_close, pipe, audit)
            credentials = CredentialFile.create(folder / "credentials", command.credentials)
            started = _fork(plan, credentials, folder, rlimits)
            undo.callback(_discard, started, place)
            always.callback(_close, started.report, started.gate)
            endpoint = UserEndpoint(
                command=command,
                account=plan.account,
                process=Process.of(started.pid, plan.account.uid),
                folder=folder,
                credentials=credentials,
                pidfd=started.pidfd,
                pipe=pipe,
                audit=audit,
                started=time.monotonic(),
                state=state,
                configuration=plan.configuration,
                functions=plan.functions,
            )
            record.save(endpoint)
            await _within(PAM_TIMEOUT, report.held(started.report), plan, "pam" if plan.pam else "account")
            await while_held(endpoint)
            record.save(endpoint)
            place.at_own_risk()
            release(started)
            await _within(EXEC_TIMEOUT, report.executed(started.report), plan, "home or log")
            endpoint.executed = True
            record.save(endpoint)
            undo.pop_all()
    except OSError as e:
        raise Refused("launch", f"{folder} cannot be written: {e}", _FOR_USER) from None
    return endpoint


def _fork(plan: LaunchPlan, credentials: CredentialFile, folder: Path, rlimits: Mapping[int, int]) -> Started:
    with contextlib.ExitStack() as ours:
        descriptors: dict[int, int] = {}
        ours.callback(lambda: _close(*descriptors.values()))
        descriptors[CREDENTIALS_FD] = credentials.open_for_reading()
        descriptors[REPORT_FD] = run_folder.pipe_writing_end(folder)
        if plan.audited:
            descriptors[AUDIT_FD] = run_folder.audit_writing_end(folder)
        try:
            return start(_spec(plan, _handover(plan, credentials), descriptors, rlimits), held=True)
        except (LaunchRefused, PamError, OSError) as e:
            raise Refused("launch", f"not started: {e}", _FOR_USER) from None


def _spec(
    plan: LaunchPlan, handed_over: Sequence[bytes | int], descriptors: Mapping[int, int], rlimits: Mapping[int, int]
) -> LaunchSpec:
    return LaunchSpec(
        argv=plan.argv,
        environment=plan.environment,
        username=plan.account.name,
        uid=plan.account.uid,
        gid=plan.account.gid,
        groups=plan.account.groups,
        directory=plan.directory or plan.account.home,
        log=plan.log,
        descriptors=descriptors,
        handed_over=handed_over,
        home=plan.account.home,
        shell=plan.account.shell,
        group_rule=plan.group_rule,
        pam=plan.pam,
        umask=plan.umask,
        login_uid_required=plan.audited,
        rlimits=rlimits,
    )


def _close(*descriptors: int | None) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)


def _handover(plan: LaunchPlan, credentials: CredentialFile) -> Sequence[bytes | int]:
    """The parts of what the user endpoint reads from its descriptor 0: one JSON object. Its credentials come first, so
    whatever else they may have in them, of two values for one key ours is the last, and counts."""
    handover = {
        **plan.handover,
        "ep_info": {**plan.handover["ep_info"], "posix_ppid": os.getpid()},
        "mem_fd": CREDENTIALS_FD,
        "enckey": credentials.key,
        "report_fd": REPORT_FD,
        **({"audit_fd": AUDIT_FD} if plan.audited else {}),
    }
    return b'{"amqp_creds": ', plan.credentials.descriptor, b", " + json.dumps(handover).encode().removeprefix(b"{")


async def _within(
    seconds: float, waiting: Coroutine[None, None, LaunchFailure | None], plan: LaunchPlan, what: str
) -> None:
    """Returns once the child has come so far; raises Refused when a step before failed, or it took too long."""
    try:
        failure = await within(seconds, waiting)
    except asyncio.TimeoutError:
        failure = LaunchFailure(what, 0, f"no answer within {seconds:g} s")
    if failure is not None:
        raise _launch_refused(failure, plan)


def _discard(started: Started, place: Place) -> None:
    """Kills a child that has not been executed, and reaps it when it ends: it may hang in a file system for long."""
    send_signal(started.pidfd, signal.SIGKILL)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    place.until(ended)
    reaping.when_ended(started.pid, started.pidfd, lambda _code, _usage: ended.set_result(None))


def _launch_refused(failure: LaunchFailure, plan: LaunchPlan) -> Refused:
    admin = f"account {plan.account.name!r}: step {failure.step!r} failed: {failure.text}"
    why = f"{failure.text.rstrip('.')} (step {failure.step!r})"
    user = f"This endpoint could not start a process for you: {why}. Please tell its administrators."
    if failure.step == "exec":
        admin += f" ({programs.obstacle(Path(plan.argv[0])) or plan.argv[0]})"
    elif failure.step == "loginuid":
        admin += " (high_assurance: tasks must not choose the login uid under which the kernel's audit has them; start"
        admin += " the manager by systemd, on a kernel with audit)"
    elif failure.step == "home" and plan.directory not in (None, plan.account.home):
        admin += f" (CWD in user_environment.yaml: {plan.directory})"
    elif failure.step in ("home", "log", "home or log"):
        what = "written to" if failure.step == "log" else "entered"
        admin += f" ({plan.account.home})"
        full = {errno.ENOSPC: "full", errno.EDQUOT: "over its quota"}.get(failure.errno)
        user = f"Your home folder cannot be {what}: {why}."
        if full is not None:
            user = f"Your home folder is {full}: remove files, then submit again."
    elif failure.step == "admission":
        user = "Your account may not run tasks on this system. If it should, please ask the system's administrators."
    elif failure.step.startswith("pam"):
        user = f"Your account may not be used on this system now: {why}."
    return Refused("launch", admin, user)
