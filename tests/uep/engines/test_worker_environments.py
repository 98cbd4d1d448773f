"""Workers in Python environments that are not the endpoint's: activated by `worker_init`, as users do it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from types import FunctionType
from typing import Any

import parsl
import pytest
from globus_compute_sdk import ShellFunction
from globus_compute_sdk.serialize import DillCode
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.version import VERSION

from lab import peer
from tests.conftest import need
from tests.uep import functions
from tests.uep.task_requests import HTEX, PROCESS_POOL, StartEngine, run, serializer, task_request, value
from uep.config import ConfigError
from uep.engines.base import Engine, EngineContext, TaskRequest
from uep.engines.htex.worker_command import POOL
from uep.engines.registry import make_engine
from wire import messages

pytestmark = pytest.mark.system

OTHER = Path(os.environ.get("MEP_OTHER", "/opt/mep-dev/other")) / "bin" / "python"

# Serializes a call by the default strategies, in another Python: what its client would send.
CALL = """
from globus_compute_sdk.serialize import ComputeSerializer
def total(n):
    parts = [2 * k for k in range(n)]
    return sum(parts)
serialize = ComputeSerializer().serialize
print(ComputeSerializer().pack_buffers([serialize(total), serialize((5,)), serialize({})]))
"""


def other_python() -> Path:
    if not OTHER.exists():
        pytest.skip("needs a Python of another version: lab/setup other")
    return OTHER


def within(environment: Path, **more: Any) -> dict[str, Any]:
    """GlobusComputeEngine with workers in a virtual environment."""
    provider = {**HTEX["provider"], "worker_init": f". {environment}/bin/activate"}  # type: ignore[dict-item]
    return {**HTEX, "provider": provider, "job_status_kwargs": {"strategy_period": 0.2}, **more}


def environment_without(package: str, folder: Path) -> Path:
    """A virtual environment with all packages of the public one, but for one."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    packages = Path("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    for entry in (peer.program().parents[1] / packages).iterdir():
        if not entry.name.startswith(package):
            (folder / "venv" / packages / entry.name).symlink_to(entry)
    return folder / "venv"


def failure(engine: Engine, task: TaskRequest) -> str:
    result = run(engine, task, 60)
    assert result.error_details is not None
    return result.data


def test_workers_need_nothing_of_ours(start: StartEngine) -> None:
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    environment = peer.program().parents[1]
    has_ours = [environment / "bin" / "python", "-I", "-c", "import uep"]
    assert subprocess.run(has_ours, capture_output=True, check=False).returncode == 1
    engine = start(within(environment))
    assert value(engine, functions.interpreter)["prefix"] == str(environment)


def test_another_python_than_the_endpoints(start: StartEngine) -> None:
    engine = start(within(other_python().parents[1]))
    seen = value(engine, functions.interpreter)
    assert seen["prefix"] == str(OTHER.parents[1])
    assert seen["version"].split(".")[:2] != platform.python_version().split(".")[:2]


def test_another_python_for_a_process_pool(start: StartEngine) -> None:
    engine = start({"type": "ProcessPoolEngine", "python": str(other_python())})
    assert value(engine, functions.interpreter)["prefix"] == str(OTHER.parents[1])


@pytest.mark.parametrize("mapping", [PROCESS_POOL, within(Path("/nosuch"))], ids=lambda m: m["type"])
def test_the_environment_that_was_made_for_the_tasks(mapping: dict[str, Any], tmp_path: Path) -> None:
    """Whatever `worker_init` does: its Python runs them, and its programs are those that they start."""
    engine = make_engine(mapping, EngineContext("x", tmp_path), {"version": "client"})
    engine.use_environment(other_python().parents[1])
    engine.start()
    try:
        seen = value(engine, functions.interpreter)
        assert seen["prefix"] == str(OTHER.parents[1])
        assert seen["version"].split(".")[:2] != platform.python_version().split(".")[:2]
        said = value(engine, ShellFunction("command -v python; echo $VIRTUAL_ENV")).stdout.split()
        assert said == [str(OTHER), str(OTHER.parents[1])]
    finally:
        engine.stop()


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"type": "ThreadPoolEngine"}, "python: tasks of ThreadPoolEngine run in the endpoint itself, with its Python"),
        ({"type": "ProcessPoolEngine", "python": "/usr/bin/python3"}, r"ProcessPoolEngine\.python names one already"),
        ({**HTEX, "container_type": "docker"}, "the image has the Python of tasks"),
        ({**HTEX, "provider": {"type": "KubernetesProvider"}}, "the image has the Python of tasks"),
        ({**HTEX, "launch_cmd": "x"}, "launch_cmd starts a Python of its own; take `python` out of the template"),
    ],
)
def test_tasks_that_cannot_have_another_python(mapping: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        make_engine(mapping, EngineContext("x", tmp_path), {})


@pytest.mark.parametrize("python", ["/nosuch/python", "python3"])
def test_a_python_that_is_none(python: str, start: StartEngine) -> None:
    with pytest.raises(ConfigError, match="expected the absolute path of a Python"):
        start({"type": "ProcessPoolEngine", "python": python})


def test_bytecode_of_another_python_is_named(start: StartEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions of the client reach workers whose batch system passes no environment on."""
    other_python()
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", platform.python_version())
    monkeypatch.setenv("GC_USER_SDK_VERSION", "4.1.0")
    worker_init = f"unset GC_USER_PYTHON_VERSION GC_USER_SDK_VERSION; . {OTHER.parents[1]}/bin/activate"
    engine = start({**HTEX, "provider": {**HTEX["provider"], "worker_init": worker_init}})  # type: ignore[dict-item]
    version = value(engine, functions.interpreter)["version"]
    plain = task_request(functions.total, 5)
    of_a_script = FunctionType(functions.total.__code__, {"__name__": "__main__"})
    buffers = [DillCode().serialize(of_a_script), serializer.serialize((5,)), serializer.serialize({})]
    task = messages.Task(plain.task_id, serializer.pack_buffers(buffers))
    said = failure(engine, TaskRequest(plain.task_id, messages.pack(task)))
    assert "The function came as bytecode of another Python: the client that started the endpoint has Python " in said
    assert (
        f"Python {platform.python_version()} and globus-compute-sdk 4.1.0, the worker has Python {version} and" in said
    )
    assert f"({OTHER}3 on {platform.node()})" in said
    assert "PureSourceTextInspect" in said
    assert value(engine, functions.total, 5) == 20


@pytest.mark.parametrize("name", ["ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"])
def test_a_client_of_another_python(name: str, start: StartEngine) -> None:
    """Run as it is, such bytecode ends the process with a segmentation fault: in a thread pool, the endpoint."""
    buffer = subprocess.run([other_python(), "-c", CALL], check=True, capture_output=True, text=True).stdout[:-1]
    engine = start({**(HTEX if name == HTEX["type"] else {}), "type": name})
    task_id = str(uuid.uuid4())
    said = failure(engine, TaskRequest(task_id, messages.pack(messages.Task(task_id, buffer))))
    assert f"bytecode of another Python: the worker has Python {platform.python_version()}" in said
    assert value(engine, functions.double, 1) == 2


@pytest.mark.parametrize("name", ["ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"])
def test_a_client_of_another_python_than_the_first(
    name: str, start: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of a client is that of the one that started the endpoint: not to be told as that of this one."""
    buffer = subprocess.run([other_python(), "-c", CALL], check=True, capture_output=True, text=True).stdout[:-1]
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", platform.python_version())
    monkeypatch.setenv("GC_USER_SDK_VERSION", "4.1.0")
    engine = start({**(HTEX if name == HTEX["type"] else {}), "type": name})
    task_id = str(uuid.uuid4())
    said = failure(engine, TaskRequest(task_id, messages.pack(messages.Task(task_id, buffer))))
    assert "the client that sent it has another one than the client that started the endpoint, the worker has" in said
    assert value(engine, functions.double, 1) == 2


def test_a_container_runs_the_public_packages_worker(start: StartEngine) -> None:
    """A container is another environment, with its own package; here without the walls."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    command = f"env PATH={peer.program().parent}:/usr/bin:/bin SEEN={{EXECUTOR_RUNDIR}} {{EXECUTOR_LAUNCH_CMD}}"
    engine = start({**HTEX, "container_type": "custom", "container_cmd_options": command})
    assert value(engine, functions.interpreter)["prefix"] == str(peer.program().parents[1])
    assert value(engine, ShellFunction("echo $SEEN")).stdout == f"{engine.context.directory}\n"
    assert "ValueError: no" in failure(engine, task_request(functions.boom))


def test_a_launch_command_of_the_sites_own(start: StartEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsl's placeholders are filled in; our code can be imported, beside what the site has on its PYTHONPATH."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    monkeypatch.setenv("PYTHONPATH", "/site")
    engine = start({**HTEX, "launch_cmd": f"env SEEN=own {peer.program().parent}/{DEFAULT_LAUNCH_CMD}"})
    said = value(engine, ShellFunction("echo $SEEN $PYTHONPATH")).stdout
    assert said == f"own {engine.context.directory}/worker:/site\n"
    assert value(engine, functions.interpreter)["prefix"] == str(peer.program().parents[1])


def test_an_environment_without_the_sdk(start: StartEngine, tmp_path: Path) -> None:
    environment = environment_without("globus_compute_sdk", tmp_path)
    said = failure(start(within(environment)), task_request(functions.double, 1))
    assert said.startswith("The package globus-compute-sdk is not installed where the worker runs: ")
    assert f"{environment}/bin/python3 on {platform.node()}" in said


@pytest.fixture
def other_parsl(tmp_path: Path) -> Path:
    """A virtual environment whose Parsl says that it is of another version."""
    environment = environment_without("parsl", tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    shutil.copytree(Path(parsl.__file__).parent, packages / "parsl", ignore=shutil.ignore_patterns("tests", "*.pyc"))
    (packages / "parsl" / "version.py").write_text("VERSION = '2025.1.6'\n")
    return environment


def test_an_environment_with_another_parsl(start: StartEngine, other_parsl: Path) -> None:
    engine = start(within(other_parsl))
    said = failure(engine, task_request(functions.double, 1))
    assert f"parsl 2025.1.6 ({other_parsl}/bin/python3 on {platform.node()}), the endpoint has parsl {VERSION}" in said
    assert f"{other_parsl}/bin/python3 -m pip install parsl=={VERSION}" in said
    assert "usage:" not in said
    assert engine.failure is not None


@pytest.mark.parametrize(
    ("ours", "theirs"), [("--poll", "--look"), ("--cpu-affinity {cpu_affinity}", "")], ids=["unknown", "missing"]
)
def test_a_launch_command_with_another_parsl(ours: str, theirs: str, start: StartEngine) -> None:
    """A pool that our script does not start, an image's, say, and that takes other arguments than ours."""
    command = DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", f"{sys.executable} -m {POOL}").replace(ours, theirs)
    engine = start({**HTEX, "launch_cmd": command, "job_status_kwargs": {"strategy_period": 0.2}})
    said = failure(engine, task_request(functions.double, 1))
    assert "usage: " in said
    assert f"the endpoint has parsl {VERSION}. In the workers' environment run: python -m pip install parsl" in said


def test_another_parsl_may_be_allowed(start: StartEngine, other_parsl: Path) -> None:
    engine = start(within(other_parsl, check_parsl_version=False))
    assert value(engine, functions.interpreter)["prefix"] == str(other_parsl)
    assert value(engine, ShellFunction("echo $MEP_PARSL")).stdout == "\n"


def test_an_environment_without_parsl(start: StartEngine, tmp_path: Path) -> None:
    environment = environment_without("parsl", tmp_path)
    engine = start(within(environment))
    said = failure(engine, task_request(functions.double, 1))
    assert "The package parsl is not installed where the worker runs: " in said
    assert f"{environment}/bin/python3 on {platform.node()}" in said
    assert engine.failure is not None
    json.dumps(engine.status())
