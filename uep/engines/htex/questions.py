"""Asks batch systems what has become of jobs.

Three answers are different here, and are the same to Parsl: the scheduler names the job and its state; it says that it
knows no such job, in its own words and exit code, which is the job's end; it cannot be asked, which says nothing at
all (`NoAnswer`). A job that it neither names nor denies may be on its way into its tables: that is for two looks.

The commands are Parsl's. Its tables of states are not: a job that is suspended or held is no job that has ended, since
it still counts against `max_blocks`, and some states are missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from parsl.jobs.states import JobState, JobStatus
from parsl.providers.torque.torque import translate_table as pbs_table

from uep.engines.htex import commands

FORGOTTEN = re.compile(
    r"invalid job id|unknown job ?id|job has finished|job <\S+> is not found|job.{,20} do(es)? not exist|no such job|"
    r"no matching job|already (been )?(finished|complet)",
    re.I,
)
"""How Slurm, PBS, Torque, LSF and Grid Engine say that they know no such job, or have none any more."""
NO_HISTORY = re.compile("job history", re.I)
"""PBS, when it keeps nothing about jobs that have ended, and was asked for that."""

_PENDING, _RUNNING, _HELD = JobState.PENDING, JobState.RUNNING, JobState.HELD
_CANCELLED, _COMPLETED, _FAILED, _TIMEOUT = JobState.CANCELLED, JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT

SLURM: Mapping[str, JobState] = {
    **dict.fromkeys(("PD", "CF", "RQ", "RF", "RH", "RD", "SE"), _PENDING),
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"), _PENDING),
    **dict.fromkeys(("SPECIAL_EXIT",), _PENDING),
    **dict.fromkeys(("R", "CG", "RS", "SI", "SO", "RUNNING", "COMPLETING", "RESIZING", "SIGNALING"), _RUNNING),
    **dict.fromkeys(("STAGE_OUT",), _RUNNING),
    **dict.fromkeys(("S", "ST", "SUSPENDED", "STOPPED"), _HELD),
    **dict.fromkeys(("CA", "CANCELLED"), _CANCELLED),
    **dict.fromkeys(("CD", "COMPLETED"), _COMPLETED),
    **dict.fromkeys(("F", "NF", "BF", "OOM", "RV", "LF"), _FAILED),
    **dict.fromkeys(("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "REVOKED", "LAUNCH_FAILED"), _FAILED),
    **dict.fromkeys(("TO", "DL", "PR", "TIMEOUT", "DEADLINE", "PREEMPTED"), _TIMEOUT),
}
PBS: Mapping[str, JobState] = {**pbs_table, "M": _PENDING}
LSF: Mapping[str, JobState] = {
    "PEND": _PENDING,
    "WAIT": _PENDING,
    "RUN": _RUNNING,
    "DONE": _COMPLETED,
    "EXIT": _FAILED,
    **dict.fromkeys(("PSUSP", "USUSP", "SSUSP", "PROV"), _HELD),
}
CONDOR: Mapping[str, JobState] = {
    "1": _PENDING,
    "2": _RUNNING,
    "3": _CANCELLED,
    "4": _COMPLETED,
    "5": _FAILED,
    "6": _RUNNING,
    "7": _HELD,
}
PODS: Mapping[str, JobState] = {
    "Pending": _PENDING,
    "Running": _RUNNING,
    "Succeeded": _COMPLETED,
    "Failed": _FAILED,
}


class NoAnswer(Exception):
    """The scheduler cannot be asked, or what it says cannot be read; the text says why."""


@dataclass(slots=True)
class Answer:
    """What a scheduler says. `states` has the jobs that it names, `forgotten` those that it does not know."""

    states: dict[str, JobStatus] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)

    def without(self, jobs: Iterable[str]) -> list[str]:
        """Returns those of `jobs` about which nothing has been said."""
        return [job for job in jobs if job not in self.states and job not in self.forgotten]

    def name(self, job: str, state: JobState) -> None:
        """Notes the state of a job."""
        self.states[job] = JobStatus(state)


def ask(provider: Any, jobs: Sequence[str]) -> Answer:
    """Asks the batch system of `provider` about `jobs`, which are not empty.

    Raises:
        NoAnswer: see there.
    """
    return _ASK.get(type(provider).__name__, _ask_parsl)(provider, jobs)


def _ask_parsl(provider: Any, jobs: Sequence[str]) -> Answer:
    """Asks Parsl, for this machine and for clouds."""
    try:
        return Answer(dict(zip(jobs, provider.status(list(jobs)), strict=True)))
    except Exception as e:
        raise NoAnswer(f"{type(e).__name__}: {e}") from e


def _ask_slurm(provider: Any, jobs: Sequence[str]) -> Answer:
    """Asks with the command that Parsl has found to work: sacct, which may lag behind or be away, or squeue."""
    clusters = f" --clusters={provider.clusters}" if provider.clusters else ""
    squeue = f"squeue{clusters} --noheader --format='%i %t' --job '{{0}}'"
    answer = Answer()
    if provider._cmd.startswith("sacct"):
        for batch in _batches(jobs, provider.status_batch_size):
            code, out, _ = _run(provider, provider._cmd.format(",".join(batch)))
            if code == 0:
                _read_lines(answer, out, jobs, SLURM, column=1)
    for batch in _batches(answer.without(jobs), provider.status_batch_size):
        _ask_squeue(provider, squeue, batch, answer)
    return answer


def _ask_squeue(provider: Any, command: str, jobs: Sequence[str], answer: Answer) -> None:
    code, out, errors = _run(provider, command.format(",".join(jobs)))
    if code == 0:
        _read_lines(answer, out, jobs, SLURM, column=1)
    elif not FORGOTTEN.search(errors):
        raise NoAnswer(_said(code, errors))
    elif len(jobs) == 1:
        answer.forgotten.update(jobs)
    else:  # it does not say which of them
        for job in jobs:
            _ask_squeue(provider, command, [job], answer)


def _ask_pbs(provider: Any, jobs: Sequence[str]) -> Answer:
    words = " ".join(jobs)
    code, out, errors = _run(provider, f"qstat -x -f -F json {words}")
    if code != 0 and NO_HISTORY.search(errors):
        code, out, errors = _run(provider, f"qstat -f -F json {words}")
    answer = Answer(forgotten=_forgotten(code, errors, jobs))
    if not answer.without(jobs):
        return answer
    try:
        found = json.loads(out or "{}", strict=False).get("Jobs", {})
        states = {_number(job): PBS.get(str(facts.get("job_state")), JobState.UNKNOWN) for job, facts in found.items()}
    except (ValueError, AttributeError) as e:
        raise NoAnswer(f"the output of qstat cannot be read: {e}") from e
    for job in jobs:
        if _number(job) in states:
            answer.name(job, states[_number(job)])
    return answer


def _ask_in_lines(
    provider: Any, jobs: Sequence[str], *, command: str, states: Mapping[str, JobState], column: int
) -> Answer:
    """Asks with `command`, of which `{0}` is the jobs, and which prints a line for each that it knows."""
    code, out, errors = _run(provider, command.format(" ".join(jobs)))
    answer = Answer(forgotten=_forgotten(code, errors, jobs))
    _read_lines(answer, out, jobs, states, column=column)
    return answer


def _ask_grid_engine(provider: Any, jobs: Sequence[str]) -> Answer:
    """Asks for the list, and then about each job that is not in it: the list names only what has not ended."""
    code, out, errors = _run(provider, "qstat")
    if code != 0:
        raise NoAnswer(_said(code, errors))
    answer = Answer()
    for line in out.splitlines():
        words = line.split()
        if len(words) > 4 and words[0] in jobs:
            answer.name(words[0], _grid_engine_state(words[4]))
    for job in answer.without(jobs):
        code, out, errors = _run(provider, f"qstat -j {job}")
        if code != 0 and FORGOTTEN.search(out + errors):
            answer.forgotten.add(job)
    return answer


def _grid_engine_state(letters: str) -> JobState:
    """Reads letters such as qw, hqw, Eqw, r, t, dr, S: each is a fact."""
    if "E" in letters:
        return _FAILED
    if "q" in letters:
        return _PENDING
    return _HELD if set(letters) & set("sSTN") else _RUNNING


def _ask_kubernetes(provider: Any, jobs: Sequence[str]) -> Answer:
    answer = Answer()
    for job in jobs:
        name = provider.resources[job]["pod_name"]
        try:
            pod = provider.kube_client.read_namespaced_pod(name=name, namespace=provider.namespace)
        except Exception as e:
            if getattr(e, "status", None) != 404:
                raise NoAnswer(f"pod {name}: {e}") from e
            answer.forgotten.add(job)
        else:
            answer.name(job, PODS.get(pod.status.phase, JobState.UNKNOWN))
    return answer


_ASK: Mapping[str, Callable[[Any, Sequence[str]], Answer]] = {
    "SlurmProvider": _ask_slurm,
    "PBSProProvider": _ask_pbs,
    "TorqueProvider": partial(_ask_in_lines, command="qstat {0}", states=PBS, column=4),
    "LSFProvider": partial(_ask_in_lines, command="bjobs -noheader -o 'jobid stat' {0}", states=LSF, column=1),
    "GridEngineProvider": _ask_grid_engine,
    "CondorProvider": partial(_ask_in_lines, command="condor_q {0} -af:jr JobStatus", states=CONDOR, column=1),
    "KubernetesProvider": _ask_kubernetes,
}


def _run(provider: Any, command: str) -> tuple[int, str, str]:
    """Runs a question.

    Raises:
        NoAnswer: it ran into its time limit.
    """
    code, out, errors = commands.run(command, provider.cmd_timeout)
    if code == commands.TIMED_OUT:
        raise NoAnswer(_said(code, errors))
    return code, out, errors


def _forgotten(code: int, errors: str, jobs: Sequence[str]) -> set[str]:
    """Finds the jobs that a command that failed with `errors` does not know; nothing else may be wrong.

    Raises:
        NoAnswer: something else is wrong.
    """
    if code == 0:
        return set()
    lines = [line for line in errors.splitlines() if line.strip()]
    if not lines or not all(FORGOTTEN.search(line) for line in lines):
        raise NoAnswer(_said(code, errors))
    named = {job for job in jobs if any(re.search(rf"(?<![\w.]){_number(job)}(?!\w)", line) for line in lines)}
    return named or (set(jobs) if len(jobs) == 1 else set())


def _read_lines(answer: Answer, out: str, jobs: Sequence[str], states: Mapping[str, JobState], *, column: int) -> None:
    """Reads lines that begin with the number of a job and have its state in a column; others are headings."""
    by_number = {_number(job): job for job in jobs}
    for line in out.splitlines():
        words = line.split()
        if len(words) > column and (job := by_number.get(_number(words[0]))) is not None:
            answer.name(job, states.get(words[column], JobState.UNKNOWN))


def _number(job: str) -> str:
    """Returns the part of a job's id that all commands print; PBS shortens the name of the server behind it."""
    number, _, rest = job.partition(".")
    return job if rest.isdigit() else number


def _batches(jobs: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(jobs), size):
        yield jobs[first : first + size]


def _said(code: int, errors: str) -> str:
    return errors.strip() or f"exit code {code}"
