"""The table of user endpoints: launches and adopts them, hears of what happens to them, stops them. In the monitor.

One `UserEndpoint` per name. What is heard of it comes through `endpoint_pipes`; what that means is in `lifecycle`; here
it is carried out, and `listener` is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import resource
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path

from mep.monitor.background import Background
from mep.monitor.containment import limits_met
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.limits_met import LimitMet
from mep.monitor.endpoints import exits, lifecycle, record, run_folder, termination
from mep.monitor.endpoints.credentials import NotSealed, Sealer, new_key
from mep.monitor.endpoints.endpoint_pipes import EndpointPipes
from mep.monitor.endpoints.launcher import Launcher
from mep.monitor.endpoints.lifecycle import Action, Event, State
from mep.monitor.endpoints.listener import Listener
from mep.monitor.endpoints.spawn import NO_PLACE, Place
from mep.monitor.endpoints.termination import Termination
from mep.monitor.endpoints.timers import Timers
from mep.monitor.endpoints.user_endpoint import ExitReport, UserEndpoint
from mep.processes import reaping
from mep.processes.time_limit import within
from mep.profile import functions
from mep.profile.config import ManagerConfig
from mep.request.credentials import Credentials
from mep.request.launch_plan import LaunchPlan
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

TELL_TIMEOUT = 5.0
"""Seconds in which one that has to end is told why; then it ends without."""
STOP_TIMEOUT = 30.0
"""Seconds that a user endpoint has to stop after SIGTERM before it is killed: it answers tasks, and ends batch jobs."""


class EndpointTable:
    """The table. Iterating over it, and `get`, give those that run.

    run_directory: where the folder of each user endpoint lies, under its name.
    config: gives the configuration in force. sealer: reads credentials for us.
    count: told how many run, whenever that changes.
    """

    def __init__(
        self,
        run_directory: Path,
        config: Callable[[], ManagerConfig],
        containment: Containment,
        listener: Listener,
        sealer: Sealer,
        count: Callable[[int], None],
    ) -> None:
        self._run_directory = run_directory
        self._config = config
        self._listener = listener
        self._sealer = sealer
        self._count = count
        self._background = Background()
        self._termination = Termination(containment)
        self._launcher = Launcher(containment, self._termination, listener.held)
        self._pipes = EndpointPipes(self._said, self._task_records, self._termination.kill, self._exited)
        self._endpoints: dict[str, UserEndpoint] = {}
        self._timers = Timers(self._happens)
        self._revived: set[str] = set()
        self._empty = asyncio.Event()
        self._actions: dict[Action, Callable[[UserEndpoint], None]] = {
            Action.REFRESH: _refresh_credentials,
            Action.REMEMBER: self._remember,
            Action.AWAIT_COMMAND: self._await_command,
            Action.TERMINATE: self._terminate,
            Action.KILL: self._termination.kill,
            Action.FORGET: self._forget,
            Action.REPORT: lambda endpoint: listener.exited(endpoint, endpoint.exit),
            Action.REVIVE: self._revive,
            Action.TELL_USER: lambda endpoint: listener.died(endpoint, endpoint.exit),
        }

    def __iter__(self) -> Iterator[UserEndpoint]:
        return iter([endpoint for endpoint in self._endpoints.values() if endpoint.state not in lifecycle.OVER])

    def get(self, name: str) -> UserEndpoint | None:
        """The running user endpoint of this name."""
        endpoint = self._endpoints.get(name)
        return None if endpoint is None or endpoint.state in lifecycle.OVER else endpoint

    async def launch(self, plan: LaunchPlan, command: StartEndpoint, place: Place = NO_PLACE) -> UserEndpoint:
        """Starts a user endpoint and returns once its program has been executed. place: that this start holds.

        Raises:
            Refused: what failed is named. Nothing is left behind.
        """
        try:
            sealed = await self._sealer.seal(command.credentials, new_key())
        except NotSealed as e:
            raise Refused("manager", f"the credentials of {command.name} cannot be sealed: {e}", _BUSY) from None
        command = dataclasses.replace(command, credentials=sealed)
        revived = {"revived": True} if command.name in self._revived else {}
        self._revived.discard(command.name)
        plan = dataclasses.replace(plan, handover={**plan.handover, "request_id": command.request_id, **revived})
        folder = self._run_directory / command.name
        try:
            endpoint = await self._launcher.launch(plan, command, folder, self._config(), place)
        except BaseException:
            sealed.file.close()  # what has failed may be in memory for long
            raise
        self._endpoints[endpoint.name] = endpoint
        self._watch(endpoint)
        self._tell_count()
        return endpoint

    def adopt(self) -> list[UserEndpoint]:
        """Takes over what an earlier manager started, and returns what runs. What has ended since is told as any end.

        What cannot be adopted is asked to stop: its user's next start command must not find two of them.
        """
        for folder in record.folders(self._run_directory):
            try:
                endpoint = record.load(folder)
            except record.RecordError as e:
                log.error("%s", e)
                termination.ask_on_record(folder)
                continue
            if endpoint.executed:
                self._take_over(endpoint)
            else:  # its command comes again, and must not meet a second one
                self._termination.undo(endpoint)
                endpoint.close()
                run_folder.remove(folder)
        self._tell_count()
        return list(self)

    def _take_over(self, endpoint: UserEndpoint) -> None:
        self._endpoints[endpoint.name] = endpoint
        if endpoint.remembered_until > time.monotonic():
            self._timers.set(endpoint, Event.GRACE_OVER, endpoint.remembered_until)
        else:
            self._happens(endpoint, Event.GRACE_OVER)
        if endpoint.pidfd is None:
            endpoint.close()
            self._termination.clear(endpoint)
            endpoint.exit = exits.unwatched(endpoint)
            self._happens(endpoint, Event.FOUND_ENDED)
            return
        self._watch(endpoint)
        _refresh_credentials(endpoint)  # the manager before may have died while it wrote the file
        if why := self._outdated(endpoint):
            log.warning("%s was started %s; stopping it", endpoint.name, why)
            endpoint.reason = f"the manager stopped it: it was started {why}"
            self._happens(endpoint, Event.STOP)
        elif endpoint.refusal is not None:
            self._happens(endpoint, Event.STOP)  # the manager before may have died while it told it why
            self._happens(endpoint, Event.COMMAND)

    def _outdated(self, endpoint: UserEndpoint) -> str:
        """Why one that an earlier manager started may not go on; empty when it may."""
        config = self._config()
        if config.high_assurance and endpoint.audit is None:
            return "when nothing had to be audited"
        is_known = endpoint.functions is not None or functions.pins(config.allowed_functions)
        if is_known and endpoint.functions != functions.fingerprint(config.allowed_functions):
            return "when other functions were allowed"
        return ""

    def release(self) -> None:
        """Looks after nothing any more: what happens from now on is for the next manager to find."""
        for endpoint in self._endpoints.values():
            self._pipes.stop(endpoint)
            endpoint.close()
            self._timers.drop(endpoint)
        self._endpoints.clear()
        self._background.give_up()

    def command_came(self, name: str) -> None:
        """A start command has come for this name, and gets its answer: what ended unwatched need not be told any more.

        To be called before `refresh` or `launch`.
        """
        endpoint = self._endpoints.get(name)
        if endpoint is not None and endpoint.state is State.MISSED:
            self._happens(endpoint, Event.COMMAND)

    async def refresh(self, command: StartEndpoint, refusal: Refusal | None = None) -> UserEndpoint | None:
        """A start command for a user endpoint that runs: fresh credentials, and a memory of it. None: it does not run.

        When nobody can seal them the old ones stay in force. refusal: what the command is told in the end, when that is
        known already.
        """
        endpoint = self.get(command.name)
        if endpoint is None:
            return None
        before = endpoint.refusal
        try:
            sealed = await self._sealer.seal(command.credentials, endpoint.credentials.key)
        except NotSealed as e:
            log.error("the credentials of %s cannot be refreshed: %s", endpoint.name, e)
            sealed = endpoint.command.credentials
        if self.get(command.name) is not endpoint:
            return None  # it has ended meanwhile
        endpoint.command = dataclasses.replace(command, credentials=sealed)
        if endpoint.refusal is before:  # else it was killed meanwhile, and the command came before that
            endpoint.refusal = refusal
        self._happens(endpoint, Event.COMMAND)
        return endpoint

    def end(self, endpoint: UserEndpoint, why: str) -> None:
        """Asks one user endpoint to stop, and says why, for its user; it is killed after STOP_TIMEOUT.

        After its end its newest command is brought to an end once more: so whoever waits for it gets an answer.
        """
        endpoint.ending = why
        self._happens(endpoint, Event.COMMAND)
        self._background.start(self._end(endpoint, why))

    def kill(self, endpoint: UserEndpoint, refusal: Refusal) -> None:
        """The same, and its newest command is told the refusal then: it does not start it again."""
        endpoint.refusal = refusal
        self.end(endpoint, f"{refusal.reason_for_user} (request {endpoint.command.request_id})")

    async def _end(self, endpoint: UserEndpoint, why: str) -> None:
        if self.get(endpoint.name) is not endpoint:
            return
        try:
            sealing = self._sealer.seal(endpoint.command.credentials, endpoint.credentials.key, why)
            told = await within(TELL_TIMEOUT, sealing)
        except (NotSealed, asyncio.TimeoutError) as e:
            log.warning("%s ends without having been told why: %s", endpoint.name, e)
        else:
            if self.get(endpoint.name) is endpoint:
                _write_credentials(endpoint, told)
        self._happens(endpoint, Event.STOP)
        self._happens(endpoint, Event.COMMAND)  # once more: the grace period may be over, and who waits gets an answer

    def stop(self) -> None:
        """Asks every user endpoint to stop, and waits for no command any more."""
        for endpoint in list(self._endpoints.values()):
            self._happens(endpoint, Event.STOP)

    async def stop_all(self) -> None:
        """Stops every user endpoint: SIGTERM, and SIGKILL for what is left after STOP_TIMEOUT."""
        self.stop()
        await self._until_empty()
        for endpoint in self:
            _give_up(endpoint)
            self._termination.kill(endpoint)
        await self._until_empty()
        await self._termination.finish(STOP_TIMEOUT)

    async def _until_empty(self) -> None:
        """Returns after STOP_TIMEOUT at the latest."""
        if self._endpoints:
            self._empty.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(STOP_TIMEOUT, self._empty.wait())

    def _watch(self, endpoint: UserEndpoint) -> None:
        endpoint.limits = limits_met.watch(endpoint.pid, endpoint.scope)
        self._pipes.begin(endpoint)
        asked_to_stop = endpoint.state in lifecycle.ASKED_TO_STOP  # by a manager before, whose patience is not known
        until = time.monotonic() + STOP_TIMEOUT if asked_to_stop else endpoint.started + self._config().start_timeout
        self._timers.set(endpoint, Event.TIMED_OUT, until)

    def _tell_count(self) -> None:
        self._count(len(list(self)))

    # What happens to one

    def _happens(self, endpoint: UserEndpoint, event: Event) -> None:
        """The next state, and what is to be done about it."""
        if self._endpoints.get(endpoint.name) is not endpoint:
            return  # ended, or released: what happens now is for the next manager to find
        if event is Event.TIMED_OUT and endpoint.state in lifecycle.UNSEEN:
            endpoint.killed_for = f"it did not check in within {self._config().start_timeout:g} s (start_timeout)"
        elif event is Event.TIMED_OUT and endpoint.state in lifecycle.ASKED_TO_STOP:
            _give_up(endpoint)
        step = lifecycle.TABLE[endpoint.state][event]
        endpoint.state = step.state
        for action in step.actions:
            self._actions[action](endpoint)
        if step.state is not State.ENDED:
            _save(endpoint)
        elif not _GO_ON.intersection(step.actions):
            endpoint.command.credentials.file.close()  # nobody is to be told, or to start another one by it

    def _said(self, endpoint: UserEndpoint, word: bytes) -> bool:
        """A word of its; False when it makes no sense."""
        if word.startswith(b"failed ") and b"failed" not in endpoint.said:
            endpoint.said.add(b"failed")
            endpoint.reason, detail = exits.last_words(word.removeprefix(b"failed "))
            endpoint.detail = detail or endpoint.detail
            return True
        if word.startswith(b"trouble ") and b"trouble" not in endpoint.said:
            endpoint.said.add(b"trouble")
            endpoint.detail, _ = exits.last_words(word.removeprefix(b"trouble "))
            return True
        if word.startswith(b"jobs ") and endpoint.jobs_told < _MOST_JOBS_TOLD:
            endpoint.jobs_told += 1
            endpoint.jobs, _ = exits.last_words(word.removeprefix(b"jobs "))
            return True
        if word.startswith(b"figures "):
            return _hear_figures(endpoint, word.removeprefix(b"figures "))
        if word not in _WORDS or word in endpoint.said:
            return False
        endpoint.said.add(word)
        if word == b"ready":
            endpoint.detail = ""
            endpoint.checked_in_after = time.monotonic() - endpoint.started
            self._happens(endpoint, Event.CHECKED_IN)
            self._listener.checked_in(endpoint)
        elif word == b"working":
            endpoint.worked = True
            _save(endpoint)
            self._listener.working(endpoint)
        elif word == b"stopping":
            self._happens(endpoint, Event.DRAINS)
        elif word == b"again":  # as a command for it would: tasks wait that it cannot run
            self._happens(endpoint, Event.COMMAND)
        return True

    def _task_records(self, endpoint: UserEndpoint, records: list[bytes]) -> Coroutine[None, None, bool]:
        """What it says of its tasks. Once that is on record: False when it may not go on, and is killed."""
        return self._recorded(endpoint, self._listener.task_records(endpoint, records))

    async def _recorded(self, endpoint: UserEndpoint, outcome: Awaitable[str | None]) -> bool:
        why = await outcome
        if why is not None:
            endpoint.killed_for = why
        return why is None

    def _exited(self, endpoint: UserEndpoint, pidfd: int) -> None:
        met = endpoint.limits.met()  # first of all: the kernel's counts go with its scope
        self._pipes.finish(endpoint)
        self._termination.clear(endpoint)
        if endpoint.adopted:
            endpoint.close()
            self._ended(endpoint, met, exits.adopted(endpoint, self._config()))
        else:
            endpoint.pidfd = None
            endpoint.close()
            reaping.when_ended(endpoint.pid, pidfd, functools.partial(self._reaped, endpoint, met))

    def _reaped(self, endpoint: UserEndpoint, met: list[LimitMet], code: int, usage: resource.struct_rusage) -> None:
        self._ended(endpoint, met, exits.reaped(endpoint, code, usage, self._config()))

    def _ended(self, endpoint: UserEndpoint, met: list[LimitMet], report: ExitReport) -> None:
        endpoint.exit = report
        if not report.clean:
            exits.explain(endpoint, met)
        self._happens(endpoint, Event.EXITED_CLEAN if report.clean else Event.EXITED_BADLY)

    # What is to be done about it

    def _remember(self, endpoint: UserEndpoint) -> None:
        endpoint.remembered_until = time.monotonic() + self._config().mu_child_ep_grace_period_s
        self._timers.set(endpoint, Event.GRACE_OVER, endpoint.remembered_until)

    def _await_command(self, endpoint: UserEndpoint) -> None:
        self._timers.set(endpoint, Event.TIMED_OUT, time.monotonic() + self._config().mu_child_ep_grace_period_s)

    def _terminate(self, endpoint: UserEndpoint) -> None:
        self._termination.ask(endpoint)
        self._timers.set(endpoint, Event.TIMED_OUT, time.monotonic() + STOP_TIMEOUT)

    def _revive(self, endpoint: UserEndpoint) -> None:
        self._revived.add(endpoint.name)
        self._listener.revive(endpoint)

    def _forget(self, endpoint: UserEndpoint) -> None:
        del self._endpoints[endpoint.name]
        self._timers.drop(endpoint)
        run_folder.remove(endpoint.folder)
        self._tell_count()
        endpoint.forgotten.set()
        if not self._endpoints:
            self._empty.set()


_GO_ON = frozenset({Action.REVIVE, Action.TELL_USER})
"""What needs the command of one that has ended."""
_BUSY = "This endpoint cannot start anything at the moment. Please submit again later."
_MOST_JOBS_TOLD = 1000
"""Of one user endpoint, to one manager: who says it more often is not heard any more."""
_FIGURES_PERIOD = 0.5
_MOST_EARLY = 1000
"""Seconds between two figures of one user endpoint, and how often it may not keep to that; then nobody listens."""
_MOST_FIGURES = 1500
"""Bytes."""
_WORDS = frozenset({b"ready", b"working", b"stopping", b"again", b"stopped"})


def _hear_figures(endpoint: UserEndpoint, said: bytes) -> bool:
    """Keeps what it says of its tasks and engine, unread. False when it says too much."""
    now = time.monotonic()
    endpoint.figures_early += now < endpoint.figures_at + _FIGURES_PERIOD
    endpoint.figures, endpoint.figures_at = said, now
    return len(said) <= _MOST_FIGURES and endpoint.figures_early <= _MOST_EARLY


def _give_up(endpoint: UserEndpoint) -> None:
    """Says, once, why one that was asked to stop is killed: its own time is over, or that of all."""
    if not endpoint.killed_for:
        log.warning("%s did not stop within %g s; killing it", endpoint.name, STOP_TIMEOUT)
        endpoint.killed_for = f"it was asked to stop, and did not within {STOP_TIMEOUT:g} s"


def _refresh_credentials(endpoint: UserEndpoint) -> None:
    _write_credentials(endpoint, endpoint.command.credentials)


def _write_credentials(endpoint: UserEndpoint, sealed: Credentials) -> None:
    try:
        endpoint.credentials.refresh(sealed)
    except OSError as e:
        log.error("the credentials of %s cannot be refreshed: %s", endpoint.name, e)


def _save(endpoint: UserEndpoint) -> None:
    try:
        record.save(endpoint)
    except (OSError, RecursionError) as e:  # others are looked after, whatever the command of this one holds
        log.error("the state of %s cannot be written (%s); a next manager may miss it", endpoint.name, e)
