"""The table of running user endpoints: launches and adopts them, hears of their check-in and exit, stops them.

One `Child` per user endpoint name. What an event means is in `lifecycle`; here it is carried out. Nothing is polled:
the exit comes through a pidfd, the reports through a pipe, both readable in the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mep import lifecycle, reaping, state
from mep.command import StartEndpoint
from mep.config import ManagerConfig
from mep.lifecycle import Action, Event, State
from mep.plan import LaunchPlan
from mep.spawn import spawn
from mep.state import Child

log = logging.getLogger(__name__)

STOP_TIMEOUT = 30.0
"""Seconds that a user endpoint has to stop after SIGTERM before it is killed: it answers tasks, and ends batch jobs."""


@dataclass(frozen=True)
class ExitReport:
    """A user endpoint that ended.

    ending: "exit status 3" or "signal 9 (SIGKILL)". seconds: since its start. cpu_seconds, peak_memory (KiB): its own
    and its reaped children's; None for one that an earlier manager started. before_check_in: known to have ended
    before its first heartbeat. tell_user: whether its user has to be told. revive: the command to start it again with.
    unwatched: it ended while no manager ran, so nobody knows how.
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


class Children:
    """The table. What happens is told in the event loop: `on_check_in`, `on_exit`, and `on_count` with the new number.

    run_directory: where the state of each user endpoint lies, in a folder of its name.
    config: gives the configuration in force.
    """

    def __init__(
        self,
        run_directory: Path,
        config: Callable[[], ManagerConfig],
        on_check_in: Callable[[Child], None],
        on_exit: Callable[[ExitReport], None],
        on_count: Callable[[int], None],
    ) -> None:
        self._run_directory = run_directory
        self._config = config
        self._on_check_in = on_check_in
        self._on_exit = on_exit
        self._on_count = on_count
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
        state = State.RUNNING if _start_timeout(self._config()) is None else State.STARTING
        child = await spawn(plan, command, self._run_directory / command.name, state)
        self._add(child)
        return child

    def adopt(self) -> list[Child]:
        """Takes over what an earlier manager started, and returns it. What has ended since is reported as any end.

        What cannot be adopted is asked to stop: its user's next start command must not find two of them.
        """
        for folder in state.folders(self._run_directory):
            try:
                child = state.load(folder, self._config().amqp_port)
            except state.StateError as e:
                log.error("%s", e)
                _ask_to_stop(folder)
                continue
            if not child.executed:
                _discard(child)
            elif child.pidfd is None:
                self._ended_unwatched(child)
            else:
                self._add(child)
                self._carry_out(child, Action.REFRESH)  # the manager before may have died while it wrote the file
        return list(self)

    def release(self) -> None:
        """Looks after nothing any more: what happens from now on is for the next manager to find."""
        for child in self:
            self._unwatch(child)
            child.close()
        self._children.clear()

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

    def _add(self, child: Child) -> None:
        assert child.pidfd is not None and child.pipe is not None
        self._children[child.name] = child
        loop = asyncio.get_running_loop()
        loop.add_reader(child.pidfd, self._exited, child)
        loop.add_reader(child.pipe, self._hear, child)
        timeout = _start_timeout(self._config())
        if timeout is not None and child.state is State.STARTING:
            loop.call_later(max(0.0, child.started + timeout - time.monotonic()), self._too_late, child)
        self._on_count(len(self._children))

    def _hear(self, child: Child) -> None:
        """The pipe has lines, or its end: nobody is left who could write."""
        if child.pipe is None:
            return
        try:
            said = os.read(child.pipe, 256)
        except BlockingIOError:
            return
        sensible = bool(said)
        for word in said.splitlines():
            if word == b"ready" and child.checked_in_after is None:
                self._checked_in(child)
            elif word == b"stopped" and not child.said_stopped:
                child.said_stopped = True
            else:
                sensible = False
        if not sensible:  # the end, or not our program: no reason to go on listening
            asyncio.get_running_loop().remove_reader(child.pipe)
            os.close(child.pipe)
            child.pipe = None

    def _unwatch(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in (child.pidfd, child.pipe):
            if descriptor is not None:
                loop.remove_reader(descriptor)

    def _checked_in(self, child: Child) -> None:
        child.checked_in_after = time.monotonic() - child.started
        self._step(child, Event.CHECKED_IN)
        self._on_check_in(child)

    def _too_late(self, child: Child) -> None:
        if self._children.get(child.name) is child:
            self._step(child, Event.TOO_LATE)

    def _exited(self, child: Child) -> None:
        assert child.pidfd is not None
        self._hear(child)
        self._unwatch(child)
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
        revived = asked and time.monotonic() < child.remembered_until
        self._on_exit(
            ExitReport(
                child=child,
                ending=ending,
                seconds=time.monotonic() - child.started,
                before_check_in=child.state is State.STARTING,
                tell_user=Action.TELL_USER in actions or (Action.REVIVE_OR_TELL in actions and not revived),
                revive=child.command if revived else None,
                cpu_seconds=cpu_seconds,
                peak_memory=peak_memory,
            )
        )

    def _ended_unwatched(self, child: Child) -> None:
        """Its folder stays until somebody has been told: this manager may be stopped before that."""
        child.close()
        self._on_exit(
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
            try:
                child.save()
            except OSError as e:
                log.error("the state of %s cannot be written (%s); a next manager may miss it", child.name, e.strerror)
        return step.actions

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
            self._on_count(len(self._children))
            if not self._children:
                self._empty.set()
        elif action is Action.TERMINATE:
            _signal(child, signal.SIGTERM)
        elif action is Action.KILL:
            _kill(child)


def _start_timeout(config: ManagerConfig) -> float | None:
    """Only our own user endpoint tells of its first heartbeat; of another program it is not expected."""
    return config.start_timeout if config.uep_command == ManagerConfig().uep_command else None


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


def _kill(child: Child) -> None:
    """The whole process group of a child of ours, which leads one: until it is reaped its number cannot be anybody
    else's. That cannot be known of an adopted one, so only itself is killed; its helpers notice and end."""
    if child.adopted:
        _signal(child, signal.SIGKILL)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _discard(child: Child) -> None:
    """Its start was never finished: its command comes again, and must not meet a second one."""
    _signal(child, signal.SIGKILL)
    child.close()
    child.remove()


def _ask_to_stop(folder: Path) -> None:
    try:
        pidfd = state.open_process(folder)
    except state.StateError:
        return  # said already; whose process it is cannot be known, so it is left alone
    if pidfd is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        os.close(pidfd)
