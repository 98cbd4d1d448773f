"""Engines without an endpoint: what starts and ends them, and tasks with functions that travel as text."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from globus_compute_sdk import ShellFunction
from globus_compute_sdk.serialize import ComputeSerializer, PureSourceTextInspect

from uep.engines.base import Engine, EngineContext, TaskRequest
from uep.engines.registry import make_engine
from wire import messages

PROCESS_POOL = {"type": "ProcessPoolEngine", "max_workers": 2}
HTEX = {
    "type": "GlobusComputeEngine",
    "max_workers_per_node": 1,
    "provider": {"type": "LocalProvider", "init_blocks": 1, "min_blocks": 0, "max_blocks": 1},
}
serializer = ComputeSerializer()
StartEngine = Callable[..., Engine]


@contextlib.contextmanager
def engines_in(folder: Path) -> Iterator[StartEngine]:
    """A function that starts engines, which end with the context; this process then is where and as it was."""
    started: list[Engine] = []
    before = os.getcwd(), dict(os.environ)

    def make(mapping: dict[str, Any]) -> Engine:
        engine = make_engine(mapping, EngineContext(str(uuid.uuid4()), folder))
        started.append(engine)
        engine.start()
        return engine

    try:
        yield make
    finally:
        for engine in started:
            engine.stop()
        _end_pools(folder)
        os.chdir(before[0])
        os.environ.clear()
        os.environ.update(before[1])


def _end_pools(folder: Path) -> None:
    """Parsl's worker pools outlive a killed interchange by two minutes, and a pool's helper would outlive the pool."""
    for pool in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in pool.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in (*pool.children(recursive=True), pool):
                    process.kill()


def task_request(function: Callable[..., Any], *args: Any, **kwargs: Any) -> TaskRequest:
    shell = isinstance(function, ShellFunction)
    code = serializer.serialize(function) if shell else PureSourceTextInspect().serialize(function)
    buffers = [code, serializer.serialize(args), serializer.serialize(kwargs)]
    task_id = str(uuid.uuid4())
    return TaskRequest(task_id, messages.pack(messages.Task(task_id, serializer.pack_buffers(buffers))))


def run(engine: Engine, task: TaskRequest, timeout: float = 30) -> messages.Result:
    result = messages.unpack(engine.submit(task).result(timeout))
    assert isinstance(result, messages.Result)
    assert result.task_id == task.task_id
    return result


def value(engine: Engine, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = run(engine, task_request(function, *args, **kwargs))
    assert result.error_details is None, result.data
    return serializer.deserialize(result.data)
