"""What all engines do alike."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from globus_compute_sdk import ShellFunction

import templates
from lab import peer
from lab.waiting import until
from tests.conftest import need
from tests.uep import functions
from tests.uep.task_requests import HTEX, PROCESS_POOL, StartEngine, run, serializer, task_request, value
from uep.config import ConfigError
from uep.engines import base
from uep.engines.base import EngineContext, TaskRequest
from uep.engines.registry import make_engine
from uep.engines.thread_pool import ThreadPoolEngine
from wire import messages

pytestmark = pytest.mark.system

SAMPLES = json.loads((Path(__file__).parents[1] / "heartbeat_keys.json").read_text())
ALL = [{"type": "ThreadPoolEngine", "max_workers": 2}, PROCESS_POOL, HTEX]
WITH_SANDBOX = [{**mapping, "run_in_sandbox": True} for mapping in ({**ALL[0], "max_workers": 1}, PROCESS_POOL, HTEX)]


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_tasks(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    engine = start(mapping)
    assert value(engine, functions.double, 4) == 8
    assert "ValueError: no" in run(engine, task_request(functions.boom)).data
    assert "SystemExit" in run(engine, task_request(functions.leave)).data
    assert value(engine, functions.whereabouts)["cwd"] == str(tmp_path / "tasks_working_dir")
    said = value(engine, ShellFunction("echo hello {who}"), who="you")
    assert (said.returncode, said.stdout) == (0, "hello you\n")
    many = [engine.submit(task_request(functions.double, n)) for n in range(50)]
    assert all(messages.unpack(each.result(30)) for each in many)


class Failing(ThreadPoolEngine):
    """Cannot try a task, or not before the tenth time."""

    works_at = 10
    error: Exception = OSError("no process can be started")
    tried = 0

    def _launch(self, task: TaskRequest) -> Future[bytes]:
        self.tried += 1
        if self.tried == self.works_at:
            return super()._launch(task)
        raise self.error


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Failing:
    monkeypatch.setattr(base, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(base, "PAUSES", 3)
    return Failing(EngineContext("x", tmp_path), {"max_retries_on_system_failure": 299})


def test_a_task_that_cannot_be_tried_is_answered(failing: Failing) -> None:
    failing.works_at = 0
    result = run(failing, task_request(functions.double, 1))
    assert "no process can be started" in result.data
    assert failing.tried == 300


def test_a_task_that_cannot_be_tried_is_answered_in_a_bounded_time(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "PAUSES", 0.1)
    failing.works_at = 0
    assert "no process can be started" in run(failing, task_request(functions.double, 1)).data
    assert failing.tried == 11


def test_a_task_is_tried_until_it_can_run(failing: Failing) -> None:
    assert value(failing, functions.double, 1) == 2
    assert failing.tried == 10


def test_a_task_that_is_refused_is_not_tried_again(failing: Failing) -> None:
    failing.error = ValueError("not here")
    assert "ValueError: not here" in run(failing, task_request(functions.double, 1)).data
    assert failing.tried == 1


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_figures_before_and_after_start(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    before = make_engine(mapping, EngineContext(str(uuid.uuid4()), tmp_path)).status()
    after = start(mapping).status()
    assert sorted(before) == sorted(after) == sorted(SAMPLES[mapping["type"]])
    json.dumps(after, allow_nan=False)


def test_figures_are_like_the_public_engines(start: StartEngine, tmp_path: Path) -> None:
    """The same names, and values of the same types: asked of the public package itself."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    script = [peer.program().parent / "python", "-I", Path(__file__).parent / "peer_figures.py", tmp_path]
    path = f"{peer.program().parent}:{os.environ['PATH']}"
    said = subprocess.run(script, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
    public = json.loads(said.stdout)
    for mapping in ALL:
        options: dict[str, Any] = {}
        if mapping is HTEX:
            options = {"provider": {**HTEX["provider"], "init_blocks": 0}, "prefetch_capacity": 0}  # type: ignore[dict-item]
        ours = start({**mapping, **options}).status()
        theirs = public[mapping["type"]]
        assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
        same = set(theirs) - {"total_mem"}
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


@pytest.mark.parametrize("mapping", WITH_SANDBOX, ids=lambda m: m["type"])
def test_sandbox_and_working_dir(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    engine = start({**mapping, "working_dir": str(tmp_path / "elsewhere")})
    seen = value(engine, functions.whereabouts)
    assert seen["cwd"] == seen["sandbox"] == str(tmp_path / "elsewhere" / seen["task"])


@pytest.mark.filterwarnings("ignore:Exception ignored in.*:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mapping", WITH_SANDBOX, ids=lambda m: m["type"])
def test_shell_function_in_its_sandbox_and_its_walltime(mapping: dict[str, Any], start: StartEngine) -> None:
    engine = start(mapping)
    task = task_request(ShellFunction("pwd; touch here", stdout="out/said"))
    assert serializer.deserialize(run(engine, task).data).returncode == 0
    sandbox = Path(engine.context.directory, "tasks_working_dir", task.task_id)
    assert (sandbox / "out" / "said").read_text() == f"{sandbox}\n"
    assert (sandbox / "here").exists()
    said = value(engine, ShellFunction("echo begun; exec sleep 5", walltime=0.5))  # the SDK lets it run on
    assert (said.returncode, said.exception_name, said.stdout) == (124, "subprocess.TimeoutExpired", "begun\n")


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_result_serializers(mapping: dict[str, Any], start: StartEngine) -> None:
    task = replace(task_request(functions.double, 2), result_serializers=("globus_compute_sdk.serialize.JSONData",))
    assert run(start(mapping), task).data == "11\n4"


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_allowed_serializers(mapping: dict[str, Any], start: StartEngine) -> None:
    allowed = ["globus_compute_sdk.*Code", "globus_compute_sdk.serialize.JSONData"]
    refused = run(start({**mapping, "allowed_serializers": allowed}), task_request(functions.double, 2))
    assert refused.error_details is not None
    assert "DillDataBase64" in refused.data
    with pytest.raises(ConfigError, match=rf"{mapping['type']}.allowed_serializers: .*'no.such.Thing'"):
        start({**mapping, "allowed_serializers": ["globus_compute_sdk.*Code", "no.such.Thing"]})


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_traceback_shows_the_users_frames_only(mapping: dict[str, Any], start: StartEngine) -> None:
    said = run(start(mapping), task_request(functions.boom)).data
    files = re.findall(r'File "(.*?)"', said)
    assert said.startswith("Traceback (most recent call last):\n")
    assert len(files) == 2
    assert set(files) == {"<string>"}


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_figures_count_tasks(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    engine = start(mapping)
    workers = 1 if mapping is HTEX else 2
    go = tmp_path / "go"
    futures = [engine.submit(task_request(functions.wait_for, str(go))) for _ in range(5)]

    def waiting() -> tuple[int, int]:
        figures = engine.status()
        return figures["outstanding_tasks"], figures["pending_tasks"]

    until(lambda: waiting() == (5, 5 - workers), "the figures to count all", 60)
    go.touch()
    for future in futures:
        future.result(30)
    until(lambda: waiting() == (0, 0), "the figures to count none", 60)


def test_priorities_are_passed_on(start: StartEngine) -> None:
    """The one resource that the HighThroughputExecutor knows."""
    engine = start(HTEX)
    assert (
        run(engine, replace(task_request(functions.double, 1), resource_specification={"priority": 3})).error_details
        is None
    )
    refused = run(engine, replace(task_request(functions.double, 1), resource_specification={"num_nodes": 3}))
    assert "InvalidResourceSpecification" in refused.data
    assert "num_nodes" in refused.data


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"type": "ThreadPool"}, "unknown engine type 'ThreadPool', did you mean 'ThreadPoolEngine'"),
        ({"type": "Slurm"}, "known: GlobusComputeEngine, GlobusMPIEngine, ProcessPoolEngine, ThreadPoolEngine"),
        ({"type": "ThreadPoolEngine", "max_worker": 1}, "did you mean 'max_workers'"),
        ({"type": "ThreadPoolEngine", "max_workers": "4"}, "max_workers: expected a whole number, got '4'"),
        ({"type": "ProcessPoolEngine", "max_workers": 0}, "expected at least 1"),
        ({"type": "ProcessPoolEngine", "run_in_sandbox": 1}, "expected true or false"),
        ({"type": "ThreadPoolEngine", "run_in_sandbox": True}, "threads share one working directory.*max_workers: 1"),
        ({"type": "ThreadPoolEngine", "run_in_sandbox": True, "max_workers": 2}, "it is 2.*take ProcessPoolEngine"),
        ({"type": "GlobusComputeEngine", "provider": "LocalProvider"}, "provider: expected a mapping"),
    ],
)
def test_wrong_configuration(mapping: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        make_engine(mapping, EngineContext("x", tmp_path))


def test_resources_need_an_engine_that_has_them(start: StartEngine) -> None:
    engine = start(ALL[0])
    plain = task_request(functions.double, 1)
    result = run(engine, TaskRequest(plain.task_id, plain.body, {"num_nodes": 2}))
    assert result.error_details is not None
    assert "resource_specification is not supported on ThreadPoolEngine" in result.data


def test_the_default_profile_gives_each_task_its_sandbox(start: StartEngine) -> None:
    """Without one the SDK writes a warning to the error output of every shell function."""
    text = (Path(templates.__path__[0]) / "default" / "user_config_template.yaml.j2").read_text()
    engine = start(yaml.safe_load(jinja2.Environment(autoescape=False).from_string(text).render())["engine"])
    assert value(engine, ShellFunction("echo said")).stderr == ""
