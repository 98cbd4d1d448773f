"""Runs one task, as the user, in the process that does the work.

`execute_task` is called in threads of the endpoint, in pool processes and in Parsl's workers. It takes the arguments of
the public package's function of that name, so that a worker environment with the public package can stand in for it.
`globus_compute_sdk` is imported when the first task comes, or by `get_ready`.

A task can do what its user may do; it cannot end the worker by an exception. `cwd` and the environment are the whole
process's: in a thread pool tasks see each other's.

What goes wrong because the client has another Python, or another SDK, says so (`versions`). Functions usually travel as
bytecode; that of another Python is recognized and not run (`bytecode`).
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from types import CodeType
from typing import Any

from uep.workers import user_modules
from uep.workers.bytecode import is_foreign
from uep.workers.partial_import import hide_parts
from uep.workers.serialization import RESULT_LIMIT, serialize, serializer
from uep.workers.time_limit import time_limit
from uep.workers.versions import both_sides, details, difference, here

PART_OF_LONG_TEXT = 100_000
"""Characters that remain at each end of an error's text that is too long."""

_is_ready = False

# The client tells a user-code error from an endpoint's by this code, and shows the traceback of `data`.
USER_ERROR = ("RemoteExecutionError", "An error occurred during the execution of this task")


class CouldNotExecuteUserTaskError(Exception):
    """The message is not a task."""


class CannotRunHere(Exception):
    """The worker's Python cannot run this task."""


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
    get_ready()
    unpacked = False
    try:
        _enter(str(task_id), run_dir, run_in_sandbox)
        function, args, kwargs = _unpack(packed_task, task_deserializers)
        unpacked = True
        with user_modules.for_task(), time_limit():
            value = function(*args, **kwargs)
        outcome = {"data": serialize(value, result_serializers, result_size_limit), "error_details": None}
    except BaseException as e:  # noqa: BLE001 - SystemExit and the like are the task's end, not the worker's
        outcome = _error(e, user_modules.clash(e) if unpacked and not isinstance(e, SystemError) else _reasons(e))
    if run_in_sandbox:
        _leave(run_dir)
    _flush()
    return _pack(str(task_id), endpoint_id, outcome, begun)


def get_ready(*, user_modules_first: bool = True) -> None:
    """Imports what tasks need of us, and puts it out of their sight; once, before the first task or with it.

    Never raises: the task itself will say what is wrong. `user_modules_first`: not where tasks share our process.
    """
    global _is_ready
    if _is_ready:
        return
    _is_ready = True
    with contextlib.suppress(Exception):
        details()
        serializer(())
    if user_modules_first:
        hide_parts("globus_compute_sdk", "parsl", "requests")
        user_modules.put_first()
    else:
        hide_parts("globus_compute_sdk")
        user_modules.append()


def check_deserializers(paths: Sequence[str]) -> None:
    """Checks that `paths` can be the `task_deserializers` of tasks.

    Raises:
        Exception: they cannot; the text says why.
    """
    serializer(tuple(paths))


def _enter(task_id: str, run_dir: str, run_in_sandbox: bool) -> None:
    os.environ["GC_TASK_UUID"] = task_id
    os.environ.pop("GC_TASK_SANDBOX_DIR", None)
    if run_in_sandbox:
        run_dir = f"{run_dir}/{task_id}"
        os.environ["GC_TASK_SANDBOX_DIR"] = run_dir
    os.makedirs(run_dir, exist_ok=True)  # noqa: PTH103 - on the way of every task
    os.chdir(run_dir)


def _leave(run_dir: str) -> None:
    """Removes the task's own directory if it has left nothing there, unless threads share where they are."""
    with contextlib.suppress(OSError, KeyError):
        if threading.current_thread() is threading.main_thread():
            os.chdir(run_dir)
            os.rmdir(os.environ["GC_TASK_SANDBOX_DIR"])  # noqa: PTH106 - on the way of every task


def _unpack(packed_task: bytes, allowed: Sequence[str] | None) -> Any:
    """Makes function and arguments of a task message.

    Raises:
        CannotRunHere: this Python cannot run them.
        Exception: whatever is wrong with the task.
    """
    task_buffer = _task_buffer(packed_task)
    try:
        task = serializer(tuple(allowed or ())).unpack_and_deserialize(task_buffer)
    except ModuleNotFoundError as e:
        if e.name != "globus_compute_sdk":
            raise
        raise CannotRunHere(
            f"The package globus-compute-sdk is not installed where the worker runs: {here()}"
        ) from None
    code = getattr(task[0], "__code__", None)
    if isinstance(code, CodeType) and is_foreign(code):
        raise CannotRunHere(
            f"The function came as bytecode of another Python: {both_sides(pythons_differ=True)}."
            " Use the same Python (major.minor) on both sides, or send functions as text:"
            " Executor(..., serializer=ComputeSerializer(strategy_code=PureSourceTextInspect()))"
        )
    _complete(task[0])
    return task


def _complete(function: object) -> None:
    """Gives a ShellFunction of a client's older SDK the options that only ours has, with their defaults.

    Such an object travels as its attributes and the name of its class, and the class is ours.
    """
    for kind in type(function).__mro__:
        if kind.__module__.startswith("globus_compute_sdk."):
            for name, option in inspect.signature(kind).parameters.items():
                if option.default is not option.empty and not hasattr(function, name):
                    setattr(function, name, option.default)


def _task_buffer(packed_task: bytes) -> Any:
    """Takes the serialized function and arguments out of a task message.

    Raises:
        CouldNotExecuteUserTaskError: it is no task message.
    """
    if packed_task[:1] == b"\x01":
        with contextlib.suppress(ValueError, KeyError, TypeError):
            message = json.loads(packed_task[1:])
            if message["message_type"] == "task":
                return message["data"]["task_buffer"]
    raise CouldNotExecuteUserTaskError(f"not a task message: {packed_task[:8]!r}...")


def _error(error: BaseException, last_line: str) -> dict[str, Any]:
    name = type(error).__name__
    if name in ("MaxResultSizeExceeded", "CouldNotExecuteUserTaskError"):
        code, message, data = name, f"remote error: {error}", getattr(error, "text", repr(error))
    elif isinstance(error, CannotRunHere):
        (code, message), data = USER_ERROR, f"{error}\n"
    else:
        (code, message), data = USER_ERROR, shortened(_traceback(error)) + last_line
    return {"data": data, "error_details": {"code": code, "user_message": message}}


def _reasons(error: BaseException) -> str:
    """Says what else than the task may be to blame."""
    return user_modules.clash(error) or difference()


def _traceback(error: BaseException) -> str:
    """Formats the traceback without frames of ours: before the user's, and after them when the time is over."""
    try:
        summary = traceback.TracebackException(type(error), error, error.__traceback__)
        here = os.path.dirname(__file__)  # noqa: PTH120 - on the way of every error
        summary.stack[:] = [frame for frame in summary.stack if os.path.dirname(frame.filename) != here]  # noqa: PTH120
        return "".join(summary.format())
    except Exception:  # noqa: BLE001 - str() of a user's exception can itself fail
        return f"{type(error).__name__} (its text cannot be shown)\n"


def shortened(text: str) -> str:
    """Cuts the middle out of a text that is too long: its ends say what happened and where."""
    left_out = len(text) - 2 * PART_OF_LONG_TEXT
    if left_out <= 0:
        return text
    return f"{text[:PART_OF_LONG_TEXT]}\n[... {left_out} characters left out ...]\n{text[-PART_OF_LONG_TEXT:]}"


def _pack(task_id: str, endpoint_id: str | None, outcome: dict[str, Any], begun: int) -> bytes:
    data = {
        "task_id": task_id,
        **outcome,
        "details": {**details(), "endpoint_id": endpoint_id and str(endpoint_id)},
        "task_statuses": [
            {"timestamp": begun, "state": "execution-start", "actor": "worker"},
            {"timestamp": time.time_ns(), "state": "execution-end", "actor": "worker"},
        ],
    }
    return b"\x01" + json.dumps({"message_type": "result", "data": data}, separators=(",", ":")).encode()


def _flush() -> None:
    """Has what the task printed in the log now, not at the worker's end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
