"""Knows the blocks of an executor: which live, which have ended, and when there is no hope for the tasks.

Parsl believes the batch system in everything, and its error handlers give up for good. Here:

- A block lives while one of its pools is connected to the interchange, whatever the batch system says; without one, it
  lives until the batch system says that it has ended or is unknown, or, twice in a row, says nothing about it. A batch
  system that cannot be asked changes nothing, but for a block that has lost its pool.
- `max_blocks` counts those that live, also those that are held or suspended.
- A job that runs without a pool for `Patience.worker` seconds is cancelled. Time in the queue does not count.
- What the batch system refuses is tried again, with pauses, when that may pass by itself; else the tasks are told.
- Tasks are failed when no block lives and no other would: three in a row have ended without a pool, or one has run out
  of time, or no job is taken, or the strategy starts no others. Then the executor can do nothing any more, and the
  jobs that wait in the queue are cancelled first: nothing that is told as failed runs afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import time
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parsl.executors.errors import BadStateException, ScalingFailed
from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError
from parsl.jobs.error_handlers import noop_error_handler
from parsl.jobs.errors import TooManyJobFailuresError
from parsl.jobs.states import JobState, JobStatus
from parsl.version import VERSION

from uep.engines.htex import commands, questions
from uep.engines.htex.output import BlockOutput, summary
from uep.engines.htex.pauses import Patience, Pauses
from uep.workers import programs, versions

log = logging.getLogger(__name__)

WINDOW = 3
"""After so many blocks in a row that did not come up, no other will."""
LOOKS = 3
"""After so many looks without an answer, a block that has lost its pool is taken for ended."""
STAYS_IN_QUEUE = ("GridEngineProvider", "CondorProvider")
"""Providers whose jobs stay in the queue, in a state of error, when they cannot be started."""
COMMAND_TIME = 60.0
"""Seconds for the interchange to answer a question; Parsl asks it nothing more after one that it did not answer."""

PASSES = re.compile(
    r"timed? ?-?out|temporar|try(ing)? (again|later)|retry|unable to contact|not responding|is down|please wait|"
    r"connection (refused|reset|closed|failure)|(can ?not|can't|could not|unable to|failed to) (connect|send|reach)|"
    r"socket|zero bytes|broken pipe|standby mode|busy|too many requests|service unavailable|bad gateway|"
    r"max retries exceeded|unable to run on qmaster|commlib|find address of local schedd|network is unreachable|"
    r"no route to host|lost connection|communication|end of file|premature end|transport endpoint",
    re.I,
)
"""What batch systems say when a submission may work a minute later."""
OTHER_ARGUMENTS = re.compile(r"usage: .*process_worker_pool.*\berror: (unrecognized|argument|the following) arg", re.S)
"""What a worker pool of another Parsl says that is not started by our script: of an image, say."""


@dataclass(slots=True)
class _Block:
    """A block whose job was submitted. `alone_since` is when its job began to run without a pool; None: it does not."""

    number: str
    job: str
    status: JobStatus
    alone_since: float | None
    came_up: bool = False
    connected: bool = False
    answered: bool = False
    looks_unnamed: int = 0
    looks_unanswered: int = 0
    warning: str = ""


class Blocks:
    """The blocks of `executor`, looked at and submitted in one thread. `is_fixed`: the strategy replaces none."""

    def __init__(
        self,
        executor: Any,
        patience: Patience,
        give_up: Callable[[Exception], None],
        *,
        is_fixed: bool,
        period: float,
    ) -> None:
        """`give_up` is called when there is no hope any more, with the reason; it fails the tasks."""
        self._executor = executor
        self._give_up = give_up
        self._provider = executor.provider
        self._patience = patience
        self._is_fixed = is_fixed
        self._is_here = type(self._provider).__name__ == "LocalProvider"
        interval = period if self._is_here else self._provider.status_polling_interval or period
        self._interval = min(interval, max(period, patience.worker / 4))
        self._output = BlockOutput(self._provider, None if executor.worker_logdir_root else Path(executor.logdir))
        self._output.sweep(())
        self.trouble = ""
        self._living: dict[str, _Block] = {}
        self._ended: dict[str, _Block] = {}
        self._unknown_pools: set[str] = set()
        self._known_parsls = {VERSION}
        self._failed: list[str] = []
        self._gives_up = executor.block_error_handler is not noop_error_handler
        self._owed: int | None = None
        self.is_stopping = False
        self._asked = float("-inf")
        name = type(self._provider).__name__
        self._questions = Pauses(f"{name}: asking about jobs", self._interval)
        self._submissions = Pauses(f"{name}: submitting a job", period, longest=60.0)
        self._cancellations = Pauses(f"{name}: cancelling jobs", self._interval)
        self._cancel_in_parsl = self._provider.cancel
        self._provider.cancel = self._cancel_each
        self._scale_in = executor.scale_in_facade
        executor.scale_out_facade = self._submit
        executor.scale_in_facade = self._scale_in_if_due

    def living(self) -> int:
        """Counts the blocks that live, and those of which only a pool is known."""
        return len(self._living) + len(self._unknown_pools)

    def jobs(self) -> list[str]:
        """Lists the jobs of the blocks that live; in any thread."""
        return [block.job for block in self._living.copy().values()]

    def look_soon(self) -> None:
        """Has the next look ask the batch system, unless that is in trouble."""
        self._asked = float("-inf")

    def look(self) -> None:
        """Finds out what lives, and draws the conclusions."""
        self._look_at_pools()
        self._ask()
        self._end_the_late()
        if self._owed and self._is_fixed:
            self._submit(self._owed)
        if self._is_fixed and not self.living() and self._owed == 0:
            last = [self._executor._status[number] for number in self._failed]
            text = "All blocks have ended, and the strategy 'none' starts no others"
            self._fail(_error(last) if last else RuntimeError(text))

    def cancel_all(self) -> None:
        """Cancels every job that lives, and waits for what they run on this machine; what goes wrong is logged."""
        jobs = [block.job for block in self._living.values()]
        here = programs.below(*map(int, jobs)) if jobs and self._is_here else []
        with programs.opened(here) as living:
            if jobs and not self._cancel(jobs):
                log.warning("not all of these jobs could be cancelled: %s", ", ".join(map(str, jobs)))
            programs.wait(living, programs.ENDING)

    # What lives

    def _look_at_pools(self) -> None:
        ask = self._executor.command_client.run
        try:
            managers = ask("MANAGERS", timeout_s=COMMAND_TIME)
            came_up = set(ask("CONNECTED_BLOCKS", timeout_s=COMMAND_TIME))
        except (CommandClientTimeoutError, CommandClientBadError):
            if not self.is_stopping:
                self._fail(RuntimeError("Parsl's interchange does not answer any more"))
            raise
        for other in {manager["parsl_version"] for manager in managers} - self._known_parsls:
            self._known_parsls.add(other)
            log.warning("%s", versions.other_parsl(VERSION, other))
        connected = {manager["block_id"] for manager in managers}
        self._revive(connected)
        for block in list(self._living.values()):
            if self._executor._status[block.number].state is JobState.SCALED_IN:
                self._ended[block.number] = self._living.pop(block.number)
                continue
            lost = block.connected and block.number not in connected
            block.connected = block.number in connected
            if not block.came_up and block.number in came_up:
                block.came_up = True
                self._failed.clear()
            if block.connected:
                block.alone_since = None
                block.looks_unnamed = block.looks_unanswered = 0
                self._show(block, JobStatus(JobState.RUNNING))
            elif lost:
                block.alone_since = time.monotonic()
                self.look_soon()
        self._cancel_what_is_held({m["block_id"] for m in managers} - {m["block_id"] for m in managers if m["active"]})

    def _revive(self, connected: set[str]) -> None:
        """Takes back blocks that were thought to have ended, and counts pools of jobs whose id nobody has."""
        for number in connected & set(self._ended):
            if self._executor._status[number].state is not JobState.SCALED_IN:
                self._living[number] = self._ended.pop(number)
        self._unknown_pools = connected - set(self._living) - set(self._ended)

    def _cancel_what_is_held(self, numbers: set[str]) -> None:
        """Cancels blocks that were told to take no more tasks, and whose jobs could not be cancelled then."""
        held = [self._living[number] for number in numbers if number in self._living]
        if held and self._cancellations.is_due and self._cancel([block.job for block in held]):
            for block in held:
                self._end(block, JobStatus(JobState.SCALED_IN))
                self._executor._simulated_status[block.number] = self._executor._status[block.number]

    def _ask(self) -> None:
        """Asks the batch system about the blocks without a pool."""
        alone = {block.job: block for block in self._living.values() if not block.connected}
        if not alone or not self._questions.is_due or time.monotonic() < self._asked + self._interval:
            return
        try:
            answer = questions.ask(self._provider, list(alone))
        except questions.NoAnswer as e:
            if self.is_stopping:
                return
            self._questions.failed(str(e))
            for block in alone.values():
                block.looks_unanswered += 1
                if block.came_up and block.looks_unanswered >= LOOKS:
                    self._cancel([block.job])
                    self._end(block, JobStatus(JobState.COMPLETED, "its pool is gone, and nobody can say why"))
            return
        finally:
            self._asked = time.monotonic()
        self._questions.worked()
        for job, block in alone.items():
            block.looks_unanswered = 0
            block.looks_unnamed += job not in answer.states
            if job in answer.forgotten or block.looks_unnamed > 1:
                if job not in answer.forgotten:  # should it live all the same, it would be one too many
                    self._cancel([job])
                text = f"Job {job} has ended: the batch system does not know it any more"
                self._end(block, JobStatus(JobState.COMPLETED, text))
            elif job in answer.states:
                block.looks_unnamed = 0
                self._named(block, answer.states[job])

    def _named(self, block: _Block, status: JobStatus) -> None:
        """Takes note of what the batch system says about a block without a pool."""
        block.answered = True
        if status.terminal:
            if status.state is JobState.FAILED and type(self._provider).__name__ in STAYS_IN_QUEUE:
                self._cancel([block.job])
            self._end(block, status)
        elif status.state is JobState.RUNNING:
            block.alone_since = block.alone_since or time.monotonic()
            self._show(block, status)
        else:  # for Parsl's strategy, what is held or suspended waits: another job would be one too many
            block.alone_since = None if status.state is not JobState.UNKNOWN else block.alone_since
            self._show(block, JobStatus(JobState.PENDING))

    def _end_the_late(self) -> None:
        """Ends blocks whose jobs run, and from which no worker comes."""
        now = time.monotonic()
        for block in list(self._living.values()):
            if block.alone_since is None or block.connected:
                continue
            alone = now - block.alone_since
            on = f" on node {node}" if (node := self._output.node(block.number)) else ""
            runs = "runs" if block.answered else "was submitted, and the batch system cannot be asked about it,"
            text = f"Job {block.job}{on} {runs} for {_minutes(alone)}, no worker has registered"
            if alone >= self._patience.worker:
                log.warning("%s; cancelling it", text)
                self._cancel([block.job])
                end = self._output.end_of_errors(block.number)
                text += f". The end of its output:\n{end}" if end else ". It has written nothing."
                self._end(block, JobStatus(JobState.FAILED, text))
                if not block.came_up and not self.living():
                    self._fail(RuntimeError(text))
            elif alone >= self._patience.worker / 2 and not block.warning:
                block.warning = text
                log.warning("%s", text)
        self.trouble = "; ".join(each.warning for each in self._living.values() if not each.connected and each.warning)

    def _show(self, block: _Block, status: JobStatus) -> None:
        """Tells Parsl's strategy, and heartbeats."""
        block.status = self._executor._status[block.number] = status

    def _end(self, block: _Block, status: JobStatus) -> None:
        """Takes a block out of those that live; gives up after too many that did not come up."""
        out, errors = self._output.files(block.number)
        message = status.message
        if not block.came_up and message is None:
            message = f"Job {block.job} has ended ({status.status_name}) before a worker had registered"
        paths = status.stdout_path or out, status.stderr_path or errors
        status = JobStatus(status.state, message, status.exit_code, *paths)
        self._show(block, status)
        self._ended[block.number] = self._living.pop(block.number)
        log.info("block %s, job %s: %s", block.number, block.job, status)
        if block.came_up or status.state is JobState.SCALED_IN:
            return
        self._failed.append(block.number)
        if len(self._failed) >= WINDOW:
            if self._unknown_pools or any(each.connected for each in self._living.values()):
                self._submissions.failed(f"{len(self._failed)} jobs in a row have ended without a worker")
            else:
                self._fail(_error([self._executor._status[number] for number in self._failed[-WINDOW:]]))

    # More and fewer

    def _submit(self, count: int) -> list[str]:
        """Submits up to `count` jobs, never so many that more than `max_blocks` live."""
        limit = max(self._provider.max_blocks, self._provider.init_blocks)
        self._owed = count
        submitted: list[str] = []
        while self._owed > 0 and self.living() < limit and self._submissions.is_due:
            number = str(self._executor._block_id_counter.get_id())
            self._output.expect(number)
            commands.forget_errors()
            try:
                job = self._executor._launch_block(number)
            except Exception as e:  # noqa: BLE001 - each provider has errors of its own
                found = self._find_by_name(number) if commands.TIMED_OUT_WORDS in str(e) else None
                if found is None:
                    self._refused(number, e)
                    break
                job = found
            self._submissions.worked()
            self._owed -= 1
            now = time.monotonic()
            block = _Block(number, job, JobStatus(JobState.PENDING), now, answered=self._is_here)
            self._executor.blocks_to_job_id[number] = job
            self._executor.job_ids_to_block[job] = number
            self._living[number] = block
            self._show(block, block.status)
            submitted.append(number)
            self._output.sweep(self._living)
        return submitted

    def _refused(self, number: str, error: Exception) -> None:
        """Takes note of a submission that failed; fails the tasks if the next one would, too, and nothing lives."""
        said = str(error)
        if isinstance(error, ScalingFailed) and (words := commands.last_errors()):
            said = words  # the provider has kept them to itself
        passes = bool(PASSES.search(said)) and "invalid" not in said.lower()
        self._submissions.failed(said)
        if passes and self._submissions.failing_for < self._patience.submit:
            return
        status = JobStatus(JobState.FAILED, f"Failed to start block {number}: {said}")
        self._executor._simulated_status[number] = self._executor._status[number] = status
        if not self.living():
            self._fail(_error([status]))

    def _find_by_name(self, number: str) -> str | None:
        """Asks Slurm for the job that a submission which ran into its time limit has left, if there is one."""
        script = self._output.script(number)
        if type(self._provider).__name__ != "SlurmProvider" or script is None:
            return None
        clusters = f" --clusters={self._provider.clusters}" if self._provider.clusters else ""
        command = f"squeue{clusters} --noheader --format=%i --name={shlex.quote(script.name)}"
        code, out, _ = commands.run(command, self._provider.cmd_timeout)
        job = next((word for word in out.split() if word.isdigit()), None) if code == 0 else None
        if job is not None:
            paths = {"job_stdout_path": f"{script}.stdout", "job_stderr_path": f"{script}.stderr"}
            self._provider.resources[job] = {"job_id": job, "status": JobStatus(JobState.PENDING), **paths}
        return job

    def _scale_in_if_due(self, *args: Any, **kwargs: Any) -> list[str]:
        """Scales in as Parsl does, unless cancelling has just failed."""
        if not self._cancellations.is_due:
            return []
        ended: list[str] = self._scale_in(*args, **kwargs)
        return ended

    def _cancel_each(self, jobs: list[str]) -> list[bool]:
        """Cancels jobs for Parsl."""
        return [self._cancel(jobs)] * len(jobs) if jobs else []

    def _cancel(self, jobs: list[str]) -> bool:
        """Cancels jobs; those that the batch system does not know count as cancelled."""
        commands.forget_errors()
        try:
            cancelled = all(self._cancel_in_parsl(jobs))
        except Exception as e:  # noqa: BLE001 - each provider has errors of its own
            cancelled, said = False, f"{type(e).__name__}: {e}"
        else:
            said = commands.last_errors()
        lines = said.splitlines()
        if cancelled or (lines and all(questions.FORGOTTEN.search(line) for line in lines)):
            self._cancellations.worked()
            return True
        self._cancellations.failed(said or "refused")
        return False

    def _fail(self, error: Exception) -> None:
        """Ends it: no job is left that could run what is now told as failed."""
        if not self._gives_up:
            return
        self.cancel_all()
        self._give_up(error)


def fail_all(executor: Any, error: Exception) -> None:
    """Sets the executor's bad state, as Parsl does, and fails its tasks; others may end while it does so."""
    log.error("giving up: %s", error)
    executor._executor_exception = error
    executor._executor_bad_state.set()
    for task in list(executor.tasks.values()):
        with contextlib.suppress(InvalidStateError):
            task.set_exception(BadStateException(executor, error))


def _error(ended: list[JobStatus]) -> Exception:
    """Says what is known about blocks that did not come up, as Parsl does; whatever bytes their output has."""
    lines = []
    for number, status in enumerate(ended, 1):
        lines.append(f"Error {number}:")
        lines += [f"\t{status.message}"] if status.message else []
        lines += [f"\tEXIT CODE: {status.exit_code}"] if status.exit_code is not None else []
        for name, path in (("STDOUT", status.stdout_path), ("STDERR", status.stderr_path)):
            lines += [f"\t{name}: {text}"] if path and (text := summary(path)) else []
    if any(OTHER_ARGUMENTS.search(line) for line in lines):
        lines.append(versions.other_parsl(VERSION, "of another version"))
    error: Exception = TooManyJobFailuresError("\n".join(lines))
    return error


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
