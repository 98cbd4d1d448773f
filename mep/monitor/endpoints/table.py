"""The table of running user endpoints: launches and adopts them, hears of their check-in and exit, stops them.

One `Child` per user endpoint name. What is heard of it comes through `hearing`; what that means is in `lifecycle`;
here it is carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

from mep.monitor.containment import containment, limits
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.endpoints import lifecycle
from mep.monitor.endpoints import record as state
from mep.monitor.endpoints.endpoint_pipes import Hearing
from mep.monitor.endpoints.lifecycle import Action, Event, State
from mep.monitor.endpoints.record import Child
from mep.monitor.endpoints.spawn import spawn
from mep.processes import reaping
from mep.profile.config import ManagerConfig
from mep.profile.resources import Resources
from mep.request.launch_plan import LaunchPlan
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

STOP_TIMEOUT = 30.0
"""Seconds that a user endpoint has to stop after SIGTERM before it is killed: it answers tasks, and ends batch jobs."""

_USELESS = 60.0
"""Seconds before which a program that does not tell of its results has been of no use."""
_UNCONTAINED = "This endpoint could not set the limits for your processes; please tell its administrators."


@dataclass(frozen=True)
class ExitReport:
    """A user endpoint that ended.

    ending: "exit status 3" or "signal 9 (SIGKILL)". seconds: since its start. cpu_seconds, peak_memory (KiB): its own
    and its reaped children's; None for one that an earlier manager started. before_check_in: known to have ended
    before its first heartbeat. tell_user: whether its user has to be told. revive: the command to start it again with.
    died_early: it failed before it was of any use. unwatched: it ended while no manager ran, so nobody knows how.
    """

    child: Child
    ending: str
    seconds: float
    before_check_in: bool
    tell_user: bool
    revive: StartEndpoint | None
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    unwatched: bool = False
    died_early: bool = False


@dataclass(frozen=True)
class Listener:
    """Who is told what happens, in the event loop.

    held: a new one exists and waits; Refused ends its launch. checked_in: its first heartbeat. working: its first
    result. records: what it says about its tasks, for the audit trail. exited: its end. count: the new number of them.
    """

    held: Callable[[Child], None]
    checked_in: Callable[[Child], None]
    working: Callable[[Child], None]
    records: Callable[[Child, list[bytes]], None]
    exited: Callable[[ExitReport], None]
    count: Callable[[int], None]


class Children:
    """The table.

    run_directory: where the state of each user endpoint lies, in a folder of its name.
    config: gives the configuration in force.
    """

    def __init__(
        self, run_directory: Path, config: Callable[[], ManagerConfig], containment: Containment, listener: Listener
    ) -> None:
        self._run_directory = run_directory
        self._config = config
        self._containment = containment
        self._listener = listener
        self._hearing = Hearing(self._said, listener.records, self._kill, self._exited)
        self._children: dict[str, Child] = {}
        self._empty = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

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
        config = self._config()
        state = State.STARTING if _speaks(config) else State.RUNNING
        rlimits = limits.rlimits(config.resources) if not containment.booted() else {}
        folder = self._run_directory / command.name
        held: list[Child] = []

        async def hold(child: Child) -> None:
            held.append(child)
            await self._hold(child, config.resources)

        try:
            child = await spawn(plan, command, folder, state, rlimits, hold)
        except BaseException:
            for failed in held:  # it may have been executed already
                self._later(self._containment.kill(failed.process, failed.scope))
            raise
        self._add(child)
        return child

    async def _hold(self, child: Child, resources: Resources) -> None:
        """What has to be before its program may be executed. Limits that the site asks for are not optional."""
        child.scope = self._containment.scope(child.name, child.pid)  # also if only half of what follows succeeds
        try:
            await self._containment.contain(child.pid, child.name, child.account.uid, resources)
        except ContainmentError as e:
            if resources:
                reason = f"{child.name} of account {child.account.name!r}: {e}"
                raise Refused("containment", reason, _UNCONTAINED) from None
            log.warning("%s has no scope of its own: %s", child.name, e)
        self._listener.held(child)

    def adopt(self) -> list[Child]:
        """Takes over what an earlier manager started, and returns it. What has ended since is reported as any end.

        What cannot be adopted is asked to stop: its user's next start command must not find two of them.
        """
        for folder in state.folders(self._run_directory):
            try:
                child = state.load(folder)
            except state.StateError as e:
                log.error("%s", e)
                _ask_to_stop(folder)
                continue
            if not child.executed:  # its command comes again, and must not meet a second one
                self._later(self._containment.kill(child.process, child.scope))
                _signal(child, signal.SIGKILL)
                child.close()
                child.remove()
            elif child.pidfd is None:
                self._ended_unwatched(child)
            else:
                self._add(child)
                self._carry_out(child, Action.REFRESH)  # the manager before may have died while it wrote the file
                if self._config().high_assurance and child.audit is None:
                    log.warning("%s was started when nothing had to be audited; stopping it", child.name)
                    self._step(child, Event.STOP)
        return list(self)

    def release(self) -> None:
        """Looks after nothing any more: what happens from now on is for the next manager to find."""
        for child in self:
            self._hearing.stop(child)
            child.close()
        self._children.clear()

    def refresh(self, child: Child, command: StartEndpoint) -> None:
        """A start command for a user endpoint that runs: fresh credentials, and a memory of it."""
        child.command = command
        self._step(child, Event.COMMAND)

    def end(self, child: Child) -> None:
        """Kills it, and whatever it has started."""
        if self._children.get(child.name) is child:
            self._kill(child)

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
            self._kill(child)
        if self._children:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_TIMEOUT)
        if self._background:
            await asyncio.wait(self._background, timeout=STOP_TIMEOUT)

    def _add(self, child: Child) -> None:
        self._children[child.name] = child
        self._hearing.begin(child)
        if child.state is State.STARTING:
            patience = child.started + self._config().start_timeout - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, patience), self._too_late, child)
        self._listener.count(len(self._children))

    def _said(self, child: Child, word: bytes) -> bool:
        """A word of its; False when it makes no sense."""
        if word == b"ready" and child.checked_in_after is None:
            self._checked_in(child)
        elif word == b"working" and not child.worked:
            child.worked = True
            self._save(child)
            self._listener.working(child)
        elif word == b"stopping" and child.stopping_since is None:
            child.stopping_since = time.monotonic()
        elif word == b"stopped" and not child.said_stopped:
            child.said_stopped = True
        else:
            return False
        return True

    def _checked_in(self, child: Child) -> None:
        child.checked_in_after = time.monotonic() - child.started
        self._step(child, Event.CHECKED_IN)
        self._listener.checked_in(child)

    def _too_late(self, child: Child) -> None:
        if self._children.get(child.name) is child:
            self._step(child, Event.TOO_LATE)

    def _exited(self, child: Child) -> None:
        assert child.pidfd is not None
        self._hearing.finish(child)
        self._later(self._containment.stop(child.process, child.scope))
        if child.adopted:
            child.close()
            ending = "stopped by itself" if child.said_stopped else "ended without a word; it may have been killed"
            self._report(child, child.said_stopped, ending)
            return
        pidfd, child.pidfd = child.pidfd, None
        child.close()
        reaping.when_ended(child.pid, pidfd, lambda code, usage: self._reaped(child, code, usage))

    def _reaped(self, child: Child, code: int, usage: resource.struct_rusage) -> None:
        if self._children.get(child.name) is not child:
            return  # released meanwhile: its end is for the next manager to tell
        self._report(child, code == 0, _ending(code), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)

    def _report(
        self, child: Child, clean: bool, ending: str, cpu_seconds: float | None = None, peak_memory: int | None = None
    ) -> None:
        actions = self._step(child, Event.EXITED_CLEAN if clean else Event.EXITED_BADLY)
        asked = not {Action.REVIVE, Action.REVIVE_OR_TELL}.isdisjoint(actions)
        # What matters is when it stopped taking tasks: the end itself may take longer than the grace period.
        revived = asked and (child.stopping_since or time.monotonic()) < child.remembered_until
        failed = Action.TELL_USER in actions or (Action.REVIVE_OR_TELL in actions and not revived)
        seconds = time.monotonic() - child.started
        useless = not child.worked if _speaks(self._config()) else seconds < _USELESS
        self._listener.exited(
            ExitReport(
                child=child,
                ending=ending,
                seconds=seconds,
                before_check_in=child.state is State.STARTING,
                tell_user=failed,
                revive=child.command if revived else None,
                cpu_seconds=cpu_seconds,
                peak_memory=peak_memory,
                died_early=failed and useless,
            )
        )

    def _ended_unwatched(self, child: Child) -> None:
        """Its folder stays until somebody has been told: this manager may be stopped before that."""
        child.close()
        self._later(self._containment.stop(child.process, child.scope))
        self._listener.exited(
            ExitReport(
                child=child,
                ending="ended while no manager ran",
                seconds=time.monotonic() - child.started,
                before_check_in=False,
                tell_user=child.state is not State.STOPPING,
                revive=child.command if time.monotonic() < child.remembered_until else None,
                unwatched=True,
            )
        )

    def _step(self, child: Child, event: Event) -> tuple[Action, ...]:
        step = lifecycle.TABLE[child.state, event]
        child.state = step.state
        for action in step.actions:
            self._carry_out(child, action)
        if Action.FORGET not in step.actions:
            self._save(child)
        return step.actions

    def _save(self, child: Child) -> None:
        try:
            child.save()
        except OSError as e:
            log.error("the state of %s cannot be written (%s); a next manager may miss it", child.name, e.strerror)

    def _carry_out(self, child: Child, action: Action) -> None:
        if action is Action.REFRESH:
            try:
                child.credentials.refresh(child.command.credentials)
            except OSError as e:
                log.error("the credentials of %s cannot be refreshed: %s", child.name, e.strerror)
        elif action is Action.REMEMBER:
            child.remembered_until = time.monotonic() + self._config().mu_child_ep_grace_period_s
        elif action is Action.FORGET:
            del self._children[child.name]
            child.remove()
            self._listener.count(len(self._children))
            if not self._children:
                self._empty.set()
        elif action is Action.TERMINATE:
            _signal(child, signal.SIGTERM)
        elif action is Action.KILL:
            self._kill(child)

    def _kill(self, child: Child) -> None:
        """It, and whatever it has started. That first: who started what can be told only while both are there."""

        async def kill() -> None:
            try:
                await self._containment.kill(child.process, child.scope)
            finally:
                _signal(child, signal.SIGKILL)

        self._later(kill())

    def _later(self, work: Coroutine[None, None, None]) -> None:
        """Ends something in the background."""

        async def logged() -> None:
            try:
                await work
            except ContainmentError as e:
                log.error("something that a user endpoint has started may have outlived it: %s", e)

        task = asyncio.get_running_loop().create_task(logged())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _speaks(config: ManagerConfig) -> bool:
    """Only our own user endpoint tells of its first heartbeat and result; of another program that is not expected."""
    return config.uep_command == ManagerConfig().uep_command


def _ending(code: int) -> str:
    """How a process ended, from what os.waitstatus_to_exitcode says."""
    if code >= 0:
        return f"exit status {code}"
    known = -code in signal.Signals.__members__.values()
    return f"signal {-code} ({signal.Signals(-code).name})" if known else f"signal {-code}"


def _signal(child: Child, number: signal.Signals) -> None:
    if child.pidfd is not None:  # else it has ended, and is only to be reaped
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, number)


def _ask_to_stop(folder: Path) -> None:
    try:
        pidfd = state.open_process(folder)
    except state.StateError:
        return  # said already; whose process it is cannot be known, so it is left alone
    if pidfd is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        os.close(pidfd)
