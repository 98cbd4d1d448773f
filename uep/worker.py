"""Runs one task. The only code of ours in the processes that do the work.

Called in threads of the endpoint, in pool processes and in Parsl's workers, there also from a copy of this file (and
of `deferred`) in another Python environment: it needs the standard library and `globus_compute_sdk` only, and imports
the latter, of which it takes no more than the serializer, when the first task comes. `execute_task` takes the
arguments of the public package's function of that name, so that a worker environment with the public package can stand
in for it.

A task can do what its user may do; it cannot end the worker by an exception. `cwd` and the environment are the whole
process's: in a thread pool tasks see each other's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from uep.deferred import defer

RESULT_LIMIT = 10 * 1024 * 1024
"""Characters of a serialized result; the service takes no more."""

# The client tells a user-code error from an endpoint's by this code, and shows the traceback of `data`.
USER_ERROR = ("RemoteExecutionError", "An error occurred during the execution of this task")


class TaskTimeout(Exception):
    """The task ran longer than the site's GC_TASK_TIMEOUT."""

    def __str__(self) -> str:
        return f"the task ran longer than the site allows (GC_TASK_TIMEOUT={os.environ.get('GC_TASK_TIMEOUT')})"


class CouldNotExecuteUserTaskError(Exception):
    """The message is not a task."""


def execute_task(
    packed_task: bytes,
    task_id: str,
    endpoint_id: str | None = None,
    *,
    run_dir: str,
    run_in_sandbox: bool = False,
    task_deserializers: Sequence[str] | None = None,
    result_serializers: Sequence[str] | None = None,
    result_size_limit: int = RESULT_LIMIT,
) -> bytes:
    """Runs the task in `packed_task` (a protocol v1 message) and returns its packed result. Never raises.

    Args:
        run_dir: absolute; the task's working directory, or with `run_in_sandbox` the parent of its own one.
        task_deserializers: import paths of the strategies that may unpack the task; none or empty: all.
        result_serializers: import paths of the strategies to try on the result; none or empty: the SDK's.
    """
    begun = time.time_ns()
    try:
        _enter(str(task_id), run_dir, run_in_sandbox)
        function, args, kwargs = _unpack(packed_task, task_deserializers)
        with _time_limit(float(os.environ.get("GC_TASK_TIMEOUT") or 0)):
            value = function(*args, **kwargs)
        outcome = {"data": _serialize(value, result_serializers, result_size_limit), "error_details": None}
    except BaseException as e:  # noqa: BLE001 - SystemExit and the like are the task's end, not the worker's
        outcome = _error(e)
    _flush()
    return _pack(str(task_id), endpoint_id, outcome, begun)


def warm_up() -> None:
    """Imports what the first task would have to wait for. Never raises: the task itself will say what is wrong."""
    with contextlib.suppress(Exception):
        _details()


def _enter(task_id: str, run_dir: str, run_in_sandbox: bool) -> None:
    os.environ["GC_TASK_UUID"] = task_id
    os.environ.pop("GC_TASK_SANDBOX_DIR", None)
    if run_in_sandbox:
        run_dir = f"{run_dir}/{task_id}"
        os.environ["GC_TASK_SANDBOX_DIR"] = run_dir
    os.makedirs(run_dir, exist_ok=True)  # noqa: PTH103 - on the way of every task
    os.chdir(run_dir)


def _unpack(packed_task: bytes, allowed: Sequence[str] | None) -> Any:
    try:
        assert packed_task[:1] == b"\x01"
        message = json.loads(packed_task[1:])
        assert message["message_type"] == "task"
        task_buffer = message["data"]["task_buffer"]
    except (AssertionError, ValueError, KeyError, TypeError):
        raise CouldNotExecuteUserTaskError(f"not a task message: {packed_task[:8]!r}...") from None
    return _serializer(tuple(allowed or ())).unpack_and_deserialize(task_buffer)


@functools.lru_cache(maxsize=8)
def _serializer(allowed: tuple[str, ...]) -> Any:
    defer("globus_compute_sdk")
    from globus_compute_sdk.serialize import ComputeSerializer

    return ComputeSerializer(allowed_deserializer_types=allowed or None)


def _serialize(value: Any, strategies: Sequence[str] | None, limit: int) -> str:
    data: str = _serializer(()).serialize_from_list(value, strategies or ())
    if len(data) > limit:
        from globus_compute_sdk.errors import MaxResultSizeExceeded

        raise MaxResultSizeExceeded(len(data), limit)
    return data


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TaskTimeout in this thread after `seconds`; 0 or less: never. A blocking system call is not cut short."""
    if seconds <= 0:
        yield
        return
    thread = ctypes.c_ulong(threading.get_ident())
    timer = threading.Timer(
        seconds, ctypes.pythonapi.PyThreadState_SetAsyncExc, (thread, ctypes.py_object(TaskTimeout))
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _error(error: BaseException) -> dict[str, Any]:
    name = type(error).__name__
    if name in ("MaxResultSizeExceeded", "CouldNotExecuteUserTaskError"):
        code, message, data = name, f"remote error: {error}", repr(error)
    else:
        (code, message), data = USER_ERROR, _traceback(error)
    return {"data": data, "error_details": {"code": code, "user_message": message}}


def _traceback(error: BaseException) -> str:
    """The traceback from the user's first frame on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - str() of a user's exception can itself fail
        return f"{type(error).__name__} (its text cannot be shown)\n"


def _pack(task_id: str, endpoint_id: str | None, outcome: dict[str, Any], begun: int) -> bytes:
    data = {
        "task_id": task_id,
        **outcome,
        "details": {**_details(), "endpoint_id": endpoint_id and str(endpoint_id)},
        "task_statuses": [
            {"timestamp": begun, "state": "execution-start", "actor": "worker"},
            {"timestamp": time.time_ns(), "state": "execution-end", "actor": "worker"},
        ],
    }
    return b"\x01" + json.dumps({"message_type": "result", "data": data}, separators=(",", ":")).encode()


@functools.cache
def _details() -> dict[str, Any]:
    """The worker's versions; the client warns its user when they differ from its own."""
    import platform

    details = {"os": platform.platform(), "python_version": platform.python_version()}
    try:
        _serializer(())  # what the first task needs
        import dill  # type: ignore[import-untyped,unused-ignore]
        from globus_compute_sdk.version import __version__
    except Exception:  # noqa: BLE001 - a broken environment shows as the task's own traceback
        return details
    return {**details, "dill_version": dill.__version__, "globus_compute_sdk_version": __version__}


def _flush() -> None:
    """What the task printed goes to the log now, not at the worker's end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
