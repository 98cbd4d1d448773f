"""What batch systems say about jobs, in their own words: programs of their names that answer as they do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from parsl.jobs.states import JobState

from lab.waiting import until
from tests.uep import functions
from tests.uep.task_requests import StartEngine, task_request
from uep.engines.htex import commands, questions
from uep.engines.htex.questions import NoAnswer
from wire import messages

PENDING, RUNNING, HELD = JobState.PENDING, JobState.RUNNING, JobState.HELD
ENDED, FAILED = JobState.COMPLETED, JobState.FAILED
GONE, NOTHING = "gone", "nothing"
FOR_EVER = str(2_000_000 + os.getpid())

SLURM = {"type": "SlurmProvider", "clusters": None, "status_batch_size": 50}
SQUEUE = {**SLURM, "_cmd": "squeue --noheader --format='%i %t' --job '{0}'"}
SACCT = {**SLURM, "_cmd": "sacct -X --noheader --format=jobid,state%20 --job '{0}'"}
INVALID = "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"
PBS, TORQUE, LSF = {"type": "PBSProProvider"}, {"type": "TorqueProvider"}, {"type": "LSFProvider"}
SGE, CONDOR = {"type": "GridEngineProvider"}, {"type": "CondorProvider"}

Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """`put(squeue="exit 1")` makes programs of these names, first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(**programs: str) -> None:
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)

    return make


def ask(like: dict[str, Any], job: str, *others: str, **more: Any) -> Any:
    """What is said about `job`: its state, GONE, or NOTHING."""
    kind = type(like["type"], (SimpleNamespace,), {})
    provider = kind(cmd_timeout=20, **{key: value for key, value in {**like, **more}.items() if key != "type"})
    answer = questions.ask(provider, [job, *others])
    if job in answer.forgotten:
        return GONE
    return answer.states[job].state if job in answer.states else NOTHING


@pytest.mark.parametrize(
    ("like", "job", "programs", "means"),
    [
        (SQUEUE, "71", {"squeue": "echo 71 R"}, RUNNING),
        (SQUEUE, "71", {"squeue": "echo CLUSTER: lab; echo 71 PD"}, PENDING),
        (SQUEUE, "71", {"squeue": "echo 71 OOM"}, FAILED),
        (SQUEUE, "71", {"squeue": "echo 71 S"}, HELD),
        (SQUEUE, "71", {"squeue": INVALID}, GONE),
        (SQUEUE, "71", {"squeue": "exit 0"}, NOTHING),
        (SACCT, "71", {"sacct": "echo 71 NODE_FAIL"}, FAILED),
        (SACCT, "71", {"sacct": "echo '71 CANCELLED by 1000'"}, JobState.CANCELLED),
        (SACCT, "71", {"sacct": "exit 0", "squeue": "echo 71 PD"}, PENDING),
        (SACCT, "71", {"sacct": "exit 0", "squeue": INVALID}, GONE),
        (SACCT, "71", {"sacct": "echo sacct: error: slurmdbd is away >&2; exit 1", "squeue": "echo 71 R"}, RUNNING),
        (PBS, "17.lab", {"qstat": """echo '{"Jobs": {"17.lab.example": {"job_state": "R"}}}'"""}, RUNNING),
        (PBS, "17.lab", {"qstat": """echo '{"Jobs": {"17.lab": {"job_state": "F"}}}'"""}, ENDED),
        (PBS, "17.lab", {"qstat": "echo qstat: Unknown Job Id 17.lab >&2; exit 153"}, GONE),
        (PBS, "17.lab", {"qstat": "echo '{}'"}, NOTHING),
        (
            PBS,
            "17.lab",
            {
                "qstat": """[ $1 = -x ] && { echo qstat: PBS is not configured to maintain job history >&2; exit 1; }
                echo '{"Jobs": {"17.lab": {"job_state": "Q"}}}'"""
            },
            PENDING,
        ),
        (PBS, "17.lab", {"qstat": "echo qstat: 17.lab Job has finished, use -x or -H >&2; exit 35"}, GONE),
        (TORQUE, "17.lab", {"qstat": "echo Job id  Name; echo 17.la job alice 0 Q batch"}, PENDING),
        (TORQUE, "17.lab", {"qstat": "echo qstat: Unknown Job Id Error 17.lab >&2; exit 153"}, GONE),
        (LSF, "71", {"bjobs": "echo 71 SSUSP"}, HELD),
        (LSF, "71", {"bjobs": "echo 'Job <71> is not found' >&2; exit 255"}, GONE),
        (SGE, "71", {"qstat": "echo 71 0.5 job alice hqw"}, PENDING),
        (SGE, "71", {"qstat": "echo 71 0.5 job alice t"}, RUNNING),
        (SGE, "71", {"qstat": "echo 71 0.5 job alice Eqw"}, FAILED),
        (SGE, "71", {"qstat": "[ $# = 0 ] || { echo Following jobs do not exist: 71 >&2; exit 1; }"}, GONE),
        (SGE, "71", {"qstat": "exit 0"}, NOTHING),
        (CONDOR, "71.0", {"condor_q": "echo 71.0 6"}, RUNNING),
        (CONDOR, "71.0", {"condor_q": "echo"}, NOTHING),
    ],
)
def test_what_is_said_about_a_job(like: Any, job: str, programs: dict[str, str], means: Any, put: Put) -> None:
    put(**programs)
    assert ask(like, job) == means


@pytest.mark.parametrize(
    ("like", "programs"),
    [
        (SQUEUE, {"squeue": "echo Unable to contact slurm controller >&2; exit 1"}),
        (SACCT, {"sacct": "exit 1", "squeue": "exit 1"}),
        (PBS, {"qstat": "echo qstat: cannot connect to server lab errno=111 >&2; exit 111"}),
        (PBS, {"qstat": """echo '{"Jobs": {"17.lab": {'"""}),
        (PBS, {"qstat": "echo '[]'"}),
        (TORQUE, {"qstat": "echo qstat: cannot connect to server >&2; exit 111"}),
        (LSF, {"bjobs": "echo LSF is down. Please wait ... >&2; exit 255"}),
        (SGE, {"qstat": "echo error: unable to send message to qmaster >&2; exit 1"}),
        (CONDOR, {"condor_q": "echo -- Failed to fetch ads from schedd >&2; exit 1"}),
        (LSF, {}),
    ],
)
def test_who_cannot_be_asked_says_nothing(like: Any, programs: dict[str, str], put: Put) -> None:
    put(**programs)
    with pytest.raises(NoAnswer):
        ask(like, "17.lab")


def test_one_forgotten_job_does_not_hide_the_others(put: Put) -> None:
    put(
        squeue=f'case "$*" in *71*) {INVALID} ;; esac; echo 72 R',
        qstat="""echo '{"Jobs": {"72.lab": {"job_state": "R"}}}'; echo qstat: Unknown Job Id 71.lab >&2; exit 153""",
    )
    assert ask(SQUEUE, "71", "72") == GONE
    assert ask(SQUEUE, "72", "71") == RUNNING
    assert ask(PBS, "71.lab", "72.lab") == GONE
    assert ask(PBS, "72.lab", "71.lab") == RUNNING


class ApiError(Exception):
    """What Kubernetes' client raises."""

    def __init__(self, status: int) -> None:
        super().__init__(f"({status})")
        self.status = status


def pods(status: int) -> dict[str, Any]:
    """A provider of pods whose service answers with an HTTP status."""

    def read(**_: str) -> None:
        raise ApiError(status)

    client = SimpleNamespace(read_namespaced_pod=read)
    resources = {"71": {"pod_name": "block-0"}}
    return {"type": "KubernetesProvider", "kube_client": client, "namespace": "lab", "resources": resources}


def test_pods_that_are_gone_and_a_service_that_is_away() -> None:
    assert ask(pods(404), "71") == GONE
    with pytest.raises(NoAnswer):
        ask(pods(503), "71")


def sleepers() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", FOR_EVER]]


def test_a_command_that_hangs_ends_with_all_that_it_started() -> None:
    code, out, errors = commands.run(f"echo begun; sleep {FOR_EVER} & (sleep {FOR_EVER}; true)", 0.2)
    assert (code, out) == (commands.TIMED_OUT, "begun\n")
    assert "no answer within 0.2 s" in errors
    until(lambda: not sleepers(), "what it started to end", 10)


FAKES = {
    "SlurmProvider": ("sbatch", "Submitted batch job 71", ("sacct", "squeue"), "scancel"),
    "PBSProProvider": ("qsub", "71.lab", ("qstat",), "qdel"),
    "TorqueProvider": ("qsub", "71.lab", ("qstat",), "qdel"),
    "LSFProvider": ("bsub", "Job <71> is submitted to queue <normal>.", ("bjobs",), "bkill"),
    "GridEngineProvider": ("qsub", "71", ("qstat",), "qdel"),
    "CondorProvider": ("condor_submit", "1 job(s) submitted to cluster 71.", ("condor_q",), "condor_rm"),
}


@pytest.mark.parametrize("kind", FAKES)
def test_commands_that_hang_at_any_moment(
    kind: str, put: Put, start: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Submissions work, questions and cancellations hang: one job, few questions, an end, and no traceback."""
    submit, said, asking, cancel = FAKES[kind]
    note = 'echo "${0##*/}" >>"${0%/*}/called"'
    hang = f"{note}; exec sleep {FOR_EVER}"
    put(**{submit: f"{note}; echo '{said}'"}, **dict.fromkeys((*asking, cancel), hang))
    provider = {"type": kind, "cmd_timeout": 1, "max_blocks": 2}
    if kind == "CondorProvider":
        provider |= {"requirements": "", "project": "lab"}
    options = {"job_status_kwargs": {"strategy_period": 0.1}, "address": "127.0.0.1"}
    engine = start({"type": "GlobusComputeEngine", "max_workers_per_node": 1, "provider": provider, **options})
    waiting = engine.submit(task_request(functions.double, 1))
    called = tmp_path / "bin" / "called"
    until(lambda: called.exists() and f"{submit}\n{asking[-1]}\n" in called.read_text(), "a question to be asked", 30)
    engine.stop()
    words = called.read_text().split()
    assert words.count(submit) == 1
    assert words.count(asking[-1]) == 1
    assert cancel in words
    assert not waiting.done()
    assert "Traceback" not in caplog.text
    until(lambda: not sleepers(), "all commands to be gone", 10)


@pytest.mark.parametrize("kind", FAKES)
def test_the_words_of_a_refusal_reach_the_user_at_once(kind: str, put: Put, start: StartEngine, tmp_path: Path) -> None:
    submit, _, asking, cancel = FAKES[kind]
    put(**{submit: "echo no such project: physics >&2; exit 1"}, **dict.fromkeys((*asking, cancel), "exit 1"))
    provider = {"type": kind}
    if kind == "CondorProvider":
        provider |= {"requirements": "", "project": "lab"}
    engine = start({"type": "GlobusComputeEngine", "provider": provider, "address": "127.0.0.1"})
    result = messages.unpack(engine.submit(task_request(functions.double, 1)).result(30))
    assert isinstance(result, messages.Result)
    assert "no such project: physics" in result.data
