"""Modules of the user's that are called like one that the endpoint or its workers load: nobody's tasks suffer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep
from tests.uep.service import Service
from tests.uep.task_requests import HTEX as HTEX_ENGINE
from tests.uep.task_requests import PROCESS_POOL, StartEngine, run, task_request, value

pytestmark = pytest.mark.system

NAMES = (
    *("uep", "wire", "hub", "identity", "mep", "mep_task", "lab"),
    *("pika", "yaml", "parsl", "dill", "psutil", "typing_extensions", "globus_compute_sdk", "zmq", "setproctitle"),
    *("json", "logging", "random", "queue", "ctypes", "socket", "asyncio", "tempfile", "platform", "cryptography"),
)
ENGINES = {"threads": THREADS, "processes": PROCESSES, "htex": HTEX}


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder with a module for each name, every other one a package."""
    folder = tmp_path / "modules"
    for number, name in enumerate(NAMES):
        file = folder / (f"{name}.py" if number % 2 else f"{name}/__init__.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("WHO = 'user'\n")
    (folder / "others.py").write_text("WHO = 'user'\n")
    return folder


def whose(*names):
    import importlib

    return [name for name in names if getattr(importlib.import_module(name), "WHO", None) == "user"]


def wants(name):
    import importlib

    return importlib.import_module(name).mine


@pytest.mark.parametrize("engine", ENGINES)
def test_no_name_breaks_an_endpoint(engine: str, modules: Path, start_uep: StartUep, service: Service) -> None:
    """With processes of its own a task sees the user's modules; with threads those of the endpoint."""
    start_uep(ENGINES[engine], environment={"PYTHONPATH": str(modules)})
    seen = service.call(whose, "others", *(name for name in NAMES if name != "mep_task"))
    expected = ["others", *(name for name in NAMES if name != "mep_task")]
    if engine == "threads":
        assert "others" in seen
        assert not {"json", "yaml", "dill", "wire", "uep"} & set(seen)
    else:
        assert seen == expected
    assert service.call(functions.double, 2) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_nor_do_those_in_home_and_directory(engine: str, modules: Path, start_uep: StartUep, service: Service) -> None:
    home, directory = modules.parent, modules.parent / ".globus_compute" / "uep.test"
    for folder in (home, directory, directory / "worker", directory / "tasks_working_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            if not (folder / name).exists():
                (folder / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    start_uep(ENGINES[engine], environment={"PYTHONPATH": ""})
    assert service.call(functions.double, 2) == 4


def test_the_installed_program_does_not_obey_pythonpath(modules: Path) -> None:
    program = Path(sys.executable).parent / "mep-uep"
    (modules / "encodings").mkdir()
    (modules / "encodings" / "__init__.py").write_text("raise SystemExit(1)\n")
    environment = {"PYTHONPATH": str(modules), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([program], cwd=modules, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:6]) == (os.EX_USAGE, "usage:")


@pytest.mark.parametrize(
    ("engine", "name", "said"),
    [
        (THREADS, "yaml", "'yaml': the task had the endpoint's, which hides the one on PYTHONPATH"),
        (THREADS, "hub", "'hub': the task had the endpoint's, which hides the one on PYTHONPATH"),
        (PROCESSES, "json", "'json': the task had the one on PYTHONPATH, which hides the environment's"),
        (HTEX, "yaml", "'yaml': the task had the one on PYTHONPATH, which hides the environment's"),
    ],
)
def test_an_error_names_the_clash(
    engine: str, name: str, said: str, modules: Path, start_uep: StartUep, service: Service
) -> None:
    start_uep(engine, environment={"PYTHONPATH": str(modules)})
    service.send(wants, name)
    assert said in service.result().data


@pytest.mark.parametrize("engine", [PROCESS_POOL, HTEX_ENGINE], ids=["processes", "htex"])
def test_programs_of_tasks_have_pythonpath_as_it_was(
    engine: dict[str, Any], modules: Path, start: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(modules))
    assert value(start(engine), variable, "PYTHONPATH") == str(modules)


def variable(name):
    import os

    return os.environ.get(name)


def with_parsl(first):
    """Imports a module of Parsl as the first one, and then runs a workflow."""
    import importlib

    importlib.import_module(first)
    import parsl
    from parsl import bash_app, python_app
    from parsl.executors import ThreadPoolExecutor

    with parsl.load(parsl.Config([ThreadPoolExecutor(max_threads=1)], run_dir="parsl")):
        doubled = python_app(lambda x: 2 * x)(4).result()
        ended = bash_app(lambda: "exit 0")().result()
    return doubled, ended


@pytest.mark.parametrize("engine", ENGINES)
def test_parsl_within_a_task(engine: str, start_uep: StartUep, service: Service) -> None:
    start_uep(ENGINES[engine])
    service.send(with_parsl, "parsl.app.app")
    assert service.value(service.result(60)) == (8, 0)


FIRST = (
    *("parsl.app.python", "parsl.app.bash", "parsl.dataflow.dflow", "parsl.executors.high_throughput.executor"),
    *("parsl.serialize.facade", "parsl.executors", "requests.sessions", "globus_compute_sdk.serialize.facade"),
    *("globus_compute_sdk.sdk.client", "globus_compute_sdk.errors", "parsl.executors.high_throughput.errors"),
)


def each_first(names):
    """Imports each in a process of its own, forked from this one."""
    import importlib
    import os

    failed = []
    for name in names:
        child = os.fork()
        if child == 0:
            try:
                importlib.import_module(name)
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            failed.append(name)
    return failed


@pytest.mark.parametrize("engine", [PROCESS_POOL, HTEX_ENGINE], ids=["processes", "htex"])
def test_parts_are_not_seen(engine: dict[str, Any], start: StartEngine) -> None:
    running = start(engine)
    assert value(running, functions.imported, "parsl", "globus_compute_sdk", "requests", "uep") == []
    assert value(running, each_first, FIRST) == []


def test_allowed_serializers_after_the_first_task(start: StartEngine) -> None:
    """Strategies are named by import paths, and the SDK that we hold is not what such an import finds."""
    allowed = ["globus_compute_sdk.serialize.DillDataBase64", "globus_compute_sdk.serialize.PureSourceTextInspect"]
    engine = start({**PROCESS_POOL, "allowed_serializers": allowed})
    for n in range(2):
        assert value(engine, functions.double, n) == 2 * n
    task = task_request(functions.double, 1)
    strategies = ("globus_compute_sdk.serialize.JSONData",)
    result = run(engine, type(task)(task.task_id, task.body, result_serializers=strategies))
    assert result.error_details is None, result.data
