"""Batch jobs that end, are forgotten, hang or are refused: with a real Slurm, which soon forgets what has ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import slurm
from lab.slurm import SlurmNode
from lab.waiting import until
from tests.conftest import need
from tests.uep import functions
from tests.uep.task_requests import StartEngine, task_request, value
from uep.engines.base import Engine
from wire import messages

pytestmark = pytest.mark.system

FOR_EVER = str(1_000_000 + os.getpid())
PATIENCE = 60
"""Seconds for a job to come up or to be given up; it takes a few."""


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[SlurmNode]:
    need(slurm.obstacle() is None, slurm.obstacle() or "")
    with SlurmNode(folder / "forgetful", min_job_age=2) as running:
        yield running


@pytest.fixture
def programs(node: SlurmNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first in PATH, before Slurm's programs; what lives in the queue afterwards is cancelled."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("SLURM_CONF", node.environment["SLURM_CONF"])
    monkeypatch.setenv("PATH", f"{folder}:{node.environment['PATH']}")
    return folder


@pytest.fixture
def begin(programs: Path, start: StartEngine) -> Callable[..., Engine]:
    """`begin(worker_init="", **engine_options)` starts an engine on the node; `max_blocks` is 1."""

    def run(provider: dict[str, Any] | None = None, **options: Any) -> Engine:
        mapping = {
            "type": "GlobusComputeEngine",
            "address": "127.0.0.1",
            "max_workers_per_node": 1,
            "heartbeat_period": 1,
            "heartbeat_threshold": 4,
            "worker_patience": 8,  # and so Slurm is asked every 2 s
            "job_status_kwargs": {"strategy_period": 0.2, "max_idletime": 600},
            "provider": {"type": "SlurmProvider", "exclusive": False, "cores_per_node": 1, **(provider or {})},
            **options,
        }
        return start(mapping)

    return run


def put(folder: Path, name: str, text: str) -> None:
    """Makes a program of that name; `$REAL` is Slurm's own."""
    path = folder / name
    path.with_suffix(".new").write_text(f"#!/bin/bash\nREAL=/usr/bin/{name}\n{text}\n")
    path.with_suffix(".new").chmod(0o755)
    path.with_suffix(".new").rename(path)


def said(future: Future[bytes], patience: float = PATIENCE) -> str:
    """What a task ended with, which is an error."""
    result = messages.unpack(future.result(patience))
    assert isinstance(result, messages.Result)
    assert result.error_details is not None
    return result.data


def came_to(future: Future[bytes]) -> bool:
    """Whether a task ended well."""
    result = messages.unpack(future.result(PATIENCE))
    assert isinstance(result, messages.Result)
    assert result.error_details is None, result.data
    return True


def sleepers() -> list[psutil.Process]:
    """What a question that hangs has started."""
    return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", FOR_EVER]]


def jobs(node: SlurmNode) -> list[str]:
    return [job.id for job in node.jobs() if job.state in ("R", "PD")]


def test_a_job_that_slurm_has_forgotten_has_ended(begin: Any, programs: Path) -> None:
    """One that never came up; the first look is when Slurm knows it no more."""
    put(programs, "squeue", 'while $REAL --noheader "${@: -2}" >/dev/null 2>&1; do sleep 0.1; done; exec $REAL "$@"')
    engine = begin({"worker_init": "echo no such module >&2; exit 7"}, strategy="none")
    text = said(engine.submit(task_request(functions.double, 1)))
    assert "no such module" in text
    assert "does not know it any more" in text
    assert engine.failure is not None


@pytest.mark.parametrize(
    "answer",
    [
        'case $* in *{job}*) echo {job} NF ;; *) exec $REAL "$@" ;; esac',
        "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1",
    ],
    ids=["node failure", "nobody can say"],
)
def test_a_job_that_had_come_up_is_replaced(begin: Any, node: SlurmNode, programs: Path, answer: str) -> None:
    """Tasks that ran are tried again, those that waited are not failed."""
    engine = begin(max_retries_on_system_failure=1)
    assert value(engine, functions.double, 1) == 2
    (first,) = jobs(node)
    put(programs, "squeue", answer.replace("{job}", first))
    tasks = [engine.submit(task_request(functions.sleep, 1)) for _ in range(3)]
    node.run("scancel", first)
    assert all(came_to(each) for each in tasks)
    assert engine.failure is None
    assert first not in jobs(node)


def test_a_living_worker_outweighs_what_slurm_says(begin: Any, node: SlurmNode, programs: Path) -> None:
    engine = begin(strategy="none")
    assert value(engine, functions.double, 1) == 2
    before = jobs(node)
    put(programs, "squeue", 'touch "${0%/*}/asked"; exit 0')
    running = engine.submit(task_request(functions.sleep, 6))
    engine._scaling.task_was_lost()  # type: ignore[attr-defined]
    assert came_to(running)
    assert jobs(node) == before


def test_no_second_job_beside_one_that_lives(begin: Any, node: SlurmNode, programs: Path) -> None:
    """Whatever Slurm says about it once its pool is connected."""
    engine = begin()
    assert value(engine, functions.double, 1) == 2
    before = jobs(node)
    put(programs, "squeue", f"echo {before[0]} NF")
    waiting = [engine.submit(task_request(functions.sleep, 1)) for _ in range(3)]
    engine._scaling.task_was_lost()  # type: ignore[attr-defined]
    assert all(came_to(each) for each in waiting)
    assert jobs(node) == before


def test_a_job_from_which_no_worker_comes(begin: Any, node: SlurmNode) -> None:
    engine = begin({"worker_init": "echo waiting for a licence >&2; sleep 600"}, worker_patience=4)
    task = engine.submit(task_request(functions.double, 1))
    until(lambda: "no worker has registered" in engine.trouble, "word of it while it runs", PATIENCE)
    text = said(task)
    assert "no worker has registered" in text
    assert "waiting for a licence" in text
    assert "Traceback" not in text
    assert "on node 2130706433" in text
    until(lambda: not jobs(node), "the job to be cancelled", PATIENCE)


def test_time_in_the_queue_does_not_count(begin: Any, node: SlurmNode) -> None:
    engine = begin({"scheduler_options": "#SBATCH --hold"}, worker_patience=2)
    task = engine.submit(task_request(functions.double, 1))
    until(lambda: jobs(node), "the job to be submitted", PATIENCE)
    with contextlib.suppress(TimeoutError):
        task.result(4)
    assert not task.done()
    node.run("scontrol", "release", *jobs(node))
    assert came_to(task)


TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


def test_a_submission_that_may_work_later_is_tried_again(begin: Any, programs: Path) -> None:
    count = '[ -e "$0.2" ] && exec $REAL "$@"; touch "$0.$(ls $0* | wc -l)"'
    put(programs, "sbatch", f'{count}; echo "{TIMED_OUT}" >&2; exit 1')
    engine = begin(strategy="none")
    assert came_to(engine.submit(task_request(functions.double, 1)))


def test_a_submission_that_hangs_when_it_was_taken(begin: Any, node: SlurmNode, programs: Path) -> None:
    """It has told no id: the job is found, and is the only one until it is cancelled at the end."""
    put(programs, "sbatch", f'[ -e "$0.1" ] && exec $REAL "$@"; touch "$0.1"; $REAL "$@" >/dev/null; sleep {FOR_EVER}')
    engine = begin({"cmd_timeout": 3, "max_blocks": 2})
    assert came_to(engine.submit(task_request(functions.double, 1)))
    until(lambda: not sleepers(), "the submission to be killed", PATIENCE)
    assert came_to(engine.submit(task_request(functions.double, 1)))
    assert len(jobs(node)) == 1
    engine.stop()
    until(lambda: not jobs(node), "its job to be cancelled", PATIENCE)


def test_a_submission_that_never_works_is_told(begin: Any, programs: Path) -> None:
    put(programs, "sbatch", 'echo "sbatch: error: Unable to contact slurm controller (connect failure)" >&2; exit 1')
    engine = begin(submit_patience=2)
    assert "Unable to contact slurm controller" in said(engine.submit(task_request(functions.double, 1)))


def test_questions_that_hang_are_killed_and_seldom_asked(
    begin: Any, node: SlurmNode, programs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile the job comes up and does its work, and ends with the engine."""
    put(programs, "squeue", 'echo asked >>"${0%/*}/asked"; sleep {FOR_EVER} & sleep {FOR_EVER}')
    engine = begin({"cmd_timeout": 1, "max_blocks": 2})
    assert came_to(engine.submit(task_request(functions.sleep, 3)))
    asked = programs / "asked"
    assert len(asked.read_text().split()) <= 2
    assert len(jobs(node)) == 1
    until(lambda: not sleepers(), "all that the question started to be gone", PATIENCE)
    assert "Traceback" not in caplog.text
    engine.stop()
    until(lambda: not jobs(node), "its job to be cancelled", PATIENCE)


def test_output_of_blocks_is_bounded(begin: Any, tmp_path: Path, node: SlurmNode) -> None:
    noise = "echo first line; yes noise | head -c 20000000; echo; echo last words | tee /dev/stderr; exit 3"
    engine = begin({"worker_init": noise}, strategy="none")
    assert "last words" in said(engine.submit(task_request(functions.double, 1)))
    files = list((tmp_path / "submit_scripts").glob("*.stdout"))
    assert files
    for file in files:
        assert file.stat().st_size < 600_000
        assert file.read_text().startswith("first line\n")
        assert file.read_text().endswith("noise\nno\nlast words\n")
