"""The table of running user endpoints: launches and adopts them, hears of their check-in and exit, stops them.

One `UserEndpoint` per name. What is heard of it comes through `endpoint_pipes`; what that means is in `lifecycle`;
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
from mep.monitor.endpoints import lifecycle, record, run_folder
from mep.monitor.endpoints.endpoint_pipes import EndpointPipes
from mep.monitor.endpoints.lifecycle import Action, Event, State
from mep.monitor.endpoints.spawn import spawn
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes import reaping
from mep.processes.pidfd import send_signal
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

    endpoint: UserEndpoint
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

    held: Callable[[UserEndpoint], None]
    checked_in: Callable[[UserEndpoint], None]
    working: Callable[[UserEndpoint], None]
    records: Callable[[UserEndpoint, list[bytes]], None]
    exited: Callable[[ExitReport], None]
    count: Callable[[int], None]


class EndpointTable:
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
        self._pipes = EndpointPipes(self._said, listener.records, self._kill, self._exited)
        self._endpoints: dict[str, UserEndpoint] = {}
        self._empty = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[UserEndpoint]:
        return iter(list(self._endpoints.values()))

    def get(self, name: str) -> UserEndpoint | None:
        """The running user endpoint of this name."""
        return self._endpoints.get(name)

    async def launch(self, plan: LaunchPlan, command: StartEndpoint) -> UserEndpoint:
        """Starts a user endpoint and returns once its program has been executed.

        Raises:
            Refused: stage `launch`; the step that failed is named. Nothing is left behind.
        """
        config = self._config()
        state = State.STARTING if _speaks(config) else State.RUNNING
        rlimits = limits.rlimits(config.resources) if not containment.booted() else {}
        folder = self._run_directory / command.name
        held: list[UserEndpoint] = []

        async def hold(endpoint: UserEndpoint) -> None:
            held.append(endpoint)
            await self._hold(endpoint, config.resources)

        try:
            endpoint = await spawn(plan, command, folder, state, rlimits, hold)
        except BaseException:
            for failed in held:  # it may have been executed already
                self._later(self._containment.kill(failed.process, failed.scope))
            raise
        self._add(endpoint)
        return endpoint

    async def _hold(self, endpoint: UserEndpoint, resources: Resources) -> None:
        """What has to be before its program may be executed. Limits that the site asks for are not optional."""
        endpoint.scope = self._containment.scope(
            endpoint.name, endpoint.pid
        )  # also if only half of what follows succeeds
        try:
            await self._containment.contain(endpoint.pid, endpoint.name, endpoint.account.uid, resources)
        except ContainmentError as e:
            if resources:
                reason = f"{endpoint.name} of account {endpoint.account.name!r}: {e}"
                raise Refused("containment", reason, _UNCONTAINED) from None
            log.warning("%s has no scope of its own: %s", endpoint.name, e)
        self._listener.held(endpoint)

    def adopt(self) -> list[UserEndpoint]:
        """Takes over what an earlier manager started, and returns it. What has ended since is reported as any end.

        What cannot be adopted is asked to stop: its user's next start command must not find two of them.
        """
        for folder in record.folders(self._run_directory):
            try:
                endpoint = record.load(folder)
            except record.RecordError as e:
                log.error("%s", e)
                _ask_to_stop(folder)
                continue
            if not endpoint.executed:  # its command comes again, and must not meet a second one
                self._later(self._containment.kill(endpoint.process, endpoint.scope))
                _signal(endpoint, signal.SIGKILL)
                endpoint.close()
                run_folder.remove(endpoint.folder)
            elif endpoint.pidfd is None:
                self._ended_unwatched(endpoint)
            else:
                self._add(endpoint)
                self._carry_out(endpoint, Action.REFRESH)  # the manager before may have died while it wrote the file
                if self._config().high_assurance and endpoint.audit is None:
                    log.warning("%s was started when nothing had to be audited; stopping it", endpoint.name)
                    self._step(endpoint, Event.STOP)
        return list(self)

    def release(self) -> None:
        """Looks after nothing any more: what happens from now on is for the next manager to find."""
        for endpoint in self:
            self._pipes.stop(endpoint)
            endpoint.close()
        self._endpoints.clear()

    def refresh(self, endpoint: UserEndpoint, command: StartEndpoint) -> None:
        """A start command for a user endpoint that runs: fresh credentials, and a memory of it."""
        endpoint.command = command
        self._step(endpoint, Event.COMMAND)

    def end(self, endpoint: UserEndpoint) -> None:
        """Kills it, and whatever it has started."""
        if self._endpoints.get(endpoint.name) is endpoint:
            self._kill(endpoint)

    async def stop_all(self) -> None:
        """Stops every user endpoint: SIGTERM, and SIGKILL for what is left after STOP_TIMEOUT."""
        for endpoint in self:
            self._step(endpoint, Event.STOP)
        if self._endpoints:
            self._empty.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_TIMEOUT)
        for endpoint in self:
            log.warning("%s did not stop within %g s; killing it", endpoint.name, STOP_TIMEOUT)
            self._kill(endpoint)
        if self._endpoints:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_TIMEOUT)
        if self._background:
            await asyncio.wait(self._background, timeout=STOP_TIMEOUT)

    def _add(self, endpoint: UserEndpoint) -> None:
        self._endpoints[endpoint.name] = endpoint
        self._pipes.begin(endpoint)
        if endpoint.state is State.STARTING:
            patience = endpoint.started + self._config().start_timeout - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, patience), self._too_late, endpoint)
        self._listener.count(len(self._endpoints))

    def _said(self, endpoint: UserEndpoint, word: bytes) -> bool:
        """A word of its; False when it makes no sense."""
        if word == b"ready" and endpoint.checked_in_after is None:
            self._checked_in(endpoint)
        elif word == b"working" and not endpoint.worked:
            endpoint.worked = True
            self._save(endpoint)
            self._listener.working(endpoint)
        elif word == b"stopping" and endpoint.stopping_since is None:
            endpoint.stopping_since = time.monotonic()
        elif word == b"stopped" and not endpoint.said_stopped:
            endpoint.said_stopped = True
        else:
            return False
        return True

    def _checked_in(self, endpoint: UserEndpoint) -> None:
        endpoint.checked_in_after = time.monotonic() - endpoint.started
        self._step(endpoint, Event.CHECKED_IN)
        self._listener.checked_in(endpoint)

    def _too_late(self, endpoint: UserEndpoint) -> None:
        if self._endpoints.get(endpoint.name) is endpoint:
            self._step(endpoint, Event.TOO_LATE)

    def _exited(self, endpoint: UserEndpoint) -> None:
        assert endpoint.pidfd is not None
        self._pipes.finish(endpoint)
        self._later(self._containment.stop(endpoint.process, endpoint.scope))
        if endpoint.adopted:
            endpoint.close()
            ending = "stopped by itself" if endpoint.said_stopped else "ended without a word; it may have been killed"
            self._report(endpoint, endpoint.said_stopped, ending)
            return
        pidfd, endpoint.pidfd = endpoint.pidfd, None
        endpoint.close()
        reaping.when_ended(endpoint.pid, pidfd, lambda code, usage: self._reaped(endpoint, code, usage))

    def _reaped(self, endpoint: UserEndpoint, code: int, usage: resource.struct_rusage) -> None:
        if self._endpoints.get(endpoint.name) is not endpoint:
            return  # released meanwhile: its end is for the next manager to tell
        self._report(endpoint, code == 0, _ending(code), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)

    def _report(
        self,
        endpoint: UserEndpoint,
        clean: bool,
        ending: str,
        cpu_seconds: float | None = None,
        peak_memory: int | None = None,
    ) -> None:
        actions = self._step(endpoint, Event.EXITED_CLEAN if clean else Event.EXITED_BADLY)
        asked = not {Action.REVIVE, Action.REVIVE_OR_TELL}.isdisjoint(actions)
        # What matters is when it stopped taking tasks: the end itself may take longer than the grace period.
        revived = asked and (endpoint.stopping_since or time.monotonic()) < endpoint.remembered_until
        failed = Action.TELL_USER in actions or (Action.REVIVE_OR_TELL in actions and not revived)
        seconds = time.monotonic() - endpoint.started
        useless = not endpoint.worked if _speaks(self._config()) else seconds < _USELESS
        self._listener.exited(
            ExitReport(
                endpoint=endpoint,
                ending=ending,
                seconds=seconds,
                before_check_in=endpoint.state is State.STARTING,
                tell_user=failed,
                revive=endpoint.command if revived else None,
                cpu_seconds=cpu_seconds,
                peak_memory=peak_memory,
                died_early=failed and useless,
            )
        )

    def _ended_unwatched(self, endpoint: UserEndpoint) -> None:
        """Its folder stays until somebody has been told: this manager may be stopped before that."""
        endpoint.close()
        self._later(self._containment.stop(endpoint.process, endpoint.scope))
        self._listener.exited(
            ExitReport(
                endpoint=endpoint,
                ending="ended while no manager ran",
                seconds=time.monotonic() - endpoint.started,
                before_check_in=False,
                tell_user=endpoint.state is not State.STOPPING,
                revive=endpoint.command if time.monotonic() < endpoint.remembered_until else None,
                unwatched=True,
            )
        )

    def _step(self, endpoint: UserEndpoint, event: Event) -> tuple[Action, ...]:
        step = lifecycle.TABLE[endpoint.state, event]
        endpoint.state = step.state
        for action in step.actions:
            self._carry_out(endpoint, action)
        if Action.FORGET not in step.actions:
            self._save(endpoint)
        return step.actions

    def _save(self, endpoint: UserEndpoint) -> None:
        try:
            record.save(endpoint)
        except OSError as e:
            log.error("the state of %s cannot be written (%s); a next manager may miss it", endpoint.name, e.strerror)

    def _carry_out(self, endpoint: UserEndpoint, action: Action) -> None:
        if action is Action.REFRESH:
            try:
                endpoint.credentials.refresh(endpoint.command.credentials)
            except OSError as e:
                log.error("the credentials of %s cannot be refreshed: %s", endpoint.name, e.strerror)
        elif action is Action.REMEMBER:
            endpoint.remembered_until = time.monotonic() + self._config().mu_child_ep_grace_period_s
        elif action is Action.FORGET:
            del self._endpoints[endpoint.name]
            run_folder.remove(endpoint.folder)
            self._listener.count(len(self._endpoints))
            if not self._endpoints:
                self._empty.set()
        elif action is Action.TERMINATE:
            _signal(endpoint, signal.SIGTERM)
        elif action is Action.KILL:
            self._kill(endpoint)

    def _kill(self, endpoint: UserEndpoint) -> None:
        """It, and whatever it has started. That first: who started what can be told only while both are there."""

        async def kill() -> None:
            try:
                await self._containment.kill(endpoint.process, endpoint.scope)
            finally:
                _signal(endpoint, signal.SIGKILL)

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


def _signal(endpoint: UserEndpoint, number: signal.Signals) -> None:
    if endpoint.pidfd is not None:  # else it has ended, and is only to be reaped
        send_signal(endpoint.pidfd, number)


def _ask_to_stop(folder: Path) -> None:
    try:
        pidfd = record.open_process(folder)
    except record.RecordError:
        return  # said already; whose process it is cannot be known, so it is left alone
    if pidfd is not None:
        send_signal(pidfd, signal.SIGTERM)
        os.close(pidfd)
