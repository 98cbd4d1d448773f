"""The table of running user endpoints: launches them, hears of their check-in and exit, stops them.

One `Child` per user endpoint name. What an event means is in `lifecycle`; here it is carried out. Nothing is polled:
the exit comes through a pidfd, the check-in through a pipe, both readable in the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mep import lifecycle, reach
from mep.account import Account
from mep.command import StartEndpoint
from mep.credentials import CredentialFile
from mep.lifecycle import Action, Event, State
from mep.plan import CREDENTIALS_FD, READY_FD, LaunchPlan
from mep.privileged.launch import LaunchFailure, Started, start
from mep.privileged.spec import LaunchRefused
from mep.refusal import Refused
from mep.renderer import read_report

log = logging.getLogger(__name__)

EXEC_TIMEOUT = 30.0
"""Seconds from fork to exec: the user's home may lie on a file system that answers slowly, or never."""
STOP_TIMEOUT = 10.0
"""Seconds that a user endpoint has to stop after SIGTERM before it is killed."""

_FOR_USER = "This endpoint could not start a process for you; please tell its administrators."


@dataclass
class Child:
    """A user endpoint that runs.

    command: the newest start command for it.
    remembered_until: until then (monotonic seconds) a clean exit starts it again.
    checked_in_after: seconds from exec to its first heartbeat; None until then, or when its program does not say.
    ready: the pipe on which it says so, while that is open.
    """

    command: StartEndpoint
    account: Account
    pid: int
    pidfd: int
    credentials: CredentialFile
    started: float
    ready: int | None
    state: State = State.STARTING
    remembered_until: float = 0.0
    checked_in_after: float | None = None

    @property
    def name(self) -> str:
        return self.command.name


@dataclass(frozen=True)
class ExitReport:
    """A user endpoint that ended.

    ending: "exit status 3" or "signal 9 (SIGKILL)". seconds: since exec. cpu_seconds, peak_memory (KiB): its own and
    its reaped children's. before_check_in: known to have ended before its first heartbeat. tell_user: whether its
    user has to be told. revive: the command to start it again with.
    """

    child: Child
    ending: str
    seconds: float
    cpu_seconds: float
    peak_memory: int
    before_check_in: bool
    tell_user: bool
    revive: StartEndpoint | None


class Children:
    """The table. `on_check_in` and `on_exit` are told what happens, in the event loop.

    run_directory: where credential files live, one folder per user endpoint.
    grace_period: how long a command for a living user endpoint is remembered, in seconds.
    start_timeout: how long one may take to its first heartbeat; None when its program does not tell us of it.
    """

    def __init__(
        self,
        run_directory: Path,
        grace_period: float,
        start_timeout: float | None,
        on_check_in: Callable[[Child], None],
        on_exit: Callable[[ExitReport], None],
    ) -> None:
        self._run_directory = run_directory
        self._grace_period = grace_period
        self._start_timeout = start_timeout
        self._on_check_in = on_check_in
        self._on_exit = on_exit
        self._children: dict[str, Child] = {}
        self._empty = asyncio.Event()

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._children.values()))

    def get(self, name: str) -> Child | None:
        """The running user endpoint of this name."""
        return self._children.get(name)

    async def launch(self, plan: LaunchPlan, command: StartEndpoint) -> Child:
        """Starts a user endpoint and returns once its program has been executed.

        Raises:
            Refused: stage `launch`; the step that failed is named. Nothing is left behind.
        """
        with contextlib.ExitStack() as undo:
            credentials = CredentialFile.create(self._run_directory / command.name, command.credentials)
            undo.callback(credentials.remove)
            started, ready = self._fork(plan, credentials)
            undo.callback(os.close, ready)
            await _executed(started, plan)
            undo.pop_all()
        child = Child(command, plan.account, started.pid, started.pidfd, credentials, time.monotonic(), ready)
        if self._start_timeout is None:
            child.state = State.RUNNING
        self._children[child.name] = child
        self._watch(child, ready)
        return child

    def refresh(self, child: Child, command: StartEndpoint) -> None:
        """A start command for a user endpoint that runs: fresh credentials, and a memory of it."""
        child.command = command
        self._step(child, Event.COMMAND)

    async def stop_all(self) -> None:
        """Stops every user endpoint: SIGTERM, and SIGKILL for what is left after STOP_TIMEOUT."""
        for child in self:
            self._step(child, Event.STOP)
        if self._children:
            self._empty.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_TIMEOUT)
        for child in self:
            log.warning("%s did not stop within %g s; killing it", child.name, STOP_TIMEOUT)
            _kill(child)
        if self._children:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_TIMEOUT)

    def _fork(self, plan: LaunchPlan, credentials: CredentialFile) -> tuple[Started, int]:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as undo:
            ready, ready_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.callback(os.close, ready)
            ours.callback(os.close, ready_end)
            ours.callback(os.close, stdin := _handover_file(plan, credentials))
            ours.callback(os.close, credential_file := credentials.open_for_reading())
            descriptors = {0: stdin, CREDENTIALS_FD: credential_file, READY_FD: ready_end}
            try:
                started = start(plan.spec(descriptors))
            except (LaunchRefused, OSError) as e:
                raise Refused("launch", f"not started: {e}", _FOR_USER) from None
            undo.pop_all()
            return started, ready

    def _watch(self, child: Child, ready: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(child.pidfd, self._exited, child)
        loop.add_reader(ready, self._hear, child)
        if self._start_timeout is not None:
            loop.call_later(self._start_timeout, self._too_late, child)

    def _hear(self, child: Child) -> None:
        """The pipe has a line (it has checked in), or its end (it never will, or its program does not know of it)."""
        if child.ready is None:
            return
        asyncio.get_running_loop().remove_reader(child.ready)
        try:
            checked_in = os.read(child.ready, 16).startswith(b"ready")
        except BlockingIOError:  # it has ended, and something that it has left behind holds the other end
            checked_in = False
        os.close(child.ready)
        child.ready = None
        if checked_in:
            child.checked_in_after = time.monotonic() - child.started
            self._step(child, Event.CHECKED_IN)
            self._on_check_in(child)

    def _too_late(self, child: Child) -> None:
        if self._children.get(child.name) is child:
            self._step(child, Event.TOO_LATE)

    def _exited(self, child: Child) -> None:
        self._hear(child)
        asyncio.get_running_loop().remove_reader(child.pidfd)
        os.close(child.pidfd)
        _, status, usage = os.wait4(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        actions = self._step(child, Event.EXITED_BADLY if code else Event.EXITED_CLEAN)
        asked = not {Action.REVIVE, Action.REVIVE_OR_TELL}.isdisjoint(actions)
        revived = asked and time.monotonic() < child.remembered_until
        self._on_exit(
            ExitReport(
                child=child,
                ending=_ending(code),
                seconds=time.monotonic() - child.started,
                cpu_seconds=usage.ru_utime + usage.ru_stime,
                peak_memory=usage.ru_maxrss,
                before_check_in=child.state is State.STARTING,
                tell_user=Action.TELL_USER in actions or (Action.REVIVE_OR_TELL in actions and not revived),
                revive=child.command if revived else None,
            )
        )

    def _step(self, child: Child, event: Event) -> tuple[Action, ...]:
        step = lifecycle.TABLE[child.state, event]
        child.state = step.state
        for action in step.actions:
            self._carry_out(child, action)
        return step.actions

    def _carry_out(self, child: Child, action: Action) -> None:
        if action is Action.REFRESH:
            child.credentials.refresh(child.command.credentials)
        elif action is Action.REMEMBER:
            child.remembered_until = time.monotonic() + self._grace_period
        elif action is Action.FORGET:
            del self._children[child.name]
            child.credentials.remove()
            if not self._children:
                self._empty.set()
        elif action is Action.TERMINATE:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
        elif action is Action.KILL:
            _kill(child)


def _handover_file(plan: LaunchPlan, credentials: CredentialFile) -> int:
    """The hand-over as a sealed file in memory: unlike a pipe it has no limit, and nobody has to wait to write it."""
    handover = {
        **plan.handover,
        "ep_info": {**plan.handover["ep_info"], "posix_ppid": os.getpid()},
        "mem_fd": CREDENTIALS_FD,
        "enckey": credentials.key,
        "ready_fd": READY_FD,
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
        if failure is None:
            return
    except asyncio.TimeoutError:
        failure = LaunchFailure("home or log", 0, f"no answer within {EXEC_TIMEOUT:g} s; is the home reachable?")
    except BaseException:
        _discard(started)
        raise
    _discard(started)
    raise _launch_refused(failure, plan)


def _discard(started: Started) -> None:
    """Kills a child that has not been executed, and reaps it when it ends: it may hang in a file system for long."""

    def reap() -> None:
        asyncio.get_running_loop().remove_reader(started.pidfd)
        os.close(started.pidfd)
        os.waitpid(started.pid, 0)

    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(started.pidfd, signal.SIGKILL)
    asyncio.get_running_loop().add_reader(started.pidfd, reap)


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


def _ending(code: int) -> str:
    """How a process ended, from what os.waitstatus_to_exitcode says."""
    if code >= 0:
        return f"exit status {code}"
    known = -code in signal.Signals.__members__.values()
    return f"signal {-code} ({signal.Signals(-code).name})" if known else f"signal {-code}"


def _kill(child: Child) -> None:
    """The whole process group: it leads one, and until it is reaped its number cannot belong to anybody else."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
