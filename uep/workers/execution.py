"""Runs one task. The only code of ours in the processes that do the work.

Called in threads of the endpoint, in pool processes and in Parsl's workers, there also from a copy of this file (and
of `partial_import`) in another Python environment: it needs the standard library and `globus_compute_sdk` only, and
imports the latter, of which it takes no more than the serializer, when the first task comes. `execute_task` takes the
arguments of the public package's function of that name, so that a worker environment with the public package can stand
in for it.

A task can do what its user may do; it cannot end the worker by an exception. `cwd` and the environment are the whole
process's: in a thread pool tasks see each other's.

What goes wrong because the client has another Python, or another SDK, says so. Functions usually travel as bytecode,
and that of another Python does not fail but kills the process that runs it: it is recognized and not run. The client's
versions are in GC_USER_PYTHON_VERSION and GC_USER_SDK_VERSION, if anybody has said.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import opcode
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any

from uep.workers.partial_import import partial_imports

RESULT_LIMIT = 10 * 1024 * 1024
"""Characters of a serialized result; the service takes no more."""

PART_OF_LONG_TEXT = 100_000
"""Characters that remain at each end of an error's text that is too long."""

NAGGING = 1.0
"""Seconds after which a task that has caught its TaskTimeout gets another."""

# The client tells a user-code error from an endpoint's by this code, and shows the traceback of `data`.
USER_ERROR = ("RemoteExecutionError", "An error occurred during the execution of this task")


class TaskTimeout(Exception):
    """The task ran longer than the site's GC_TASK_TIMEOUT."""

    def __str__(self) -> str:
        return f"the task ran longer than the {os.environ.get('GC_TASK_TIMEOUT')} s that the site allows"


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
    unpacked = False
    try:
        _enter(str(task_id), run_dir, run_in_sandbox)
        function, args, kwargs = _unpack(packed_task, task_deserializers)
        unpacked = True
        with _time_limit():
            value = function(*args, **kwargs)
        outcome = {"data": _serialize(value, result_serializers, result_size_limit), "error_details": None}
    except BaseException as e:  # noqa: BLE001 - SystemExit and the like are the task's end, not the worker's
        outcome = _error(e, "" if unpacked and not isinstance(e, SystemError) else difference())
    _flush()
    return _pack(str(task_id), endpoint_id, outcome, begun)


def warm_up() -> None:
    """Imports what the first task would have to wait for. Never raises: the task itself will say what is wrong."""
    with contextlib.suppress(Exception):
        _details()


def check_deserializers(paths: Sequence[str]) -> None:
    """Raises an exception that says why `paths` cannot be the `task_deserializers` of tasks."""
    _serializer(tuple(paths))


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
    try:
        task = _serializer(tuple(allowed or ())).unpack_and_deserialize(task_buffer)
    except ModuleNotFoundError as e:
        if e.name != "globus_compute_sdk":
            raise
        raise CannotRunHere(
            f"The package globus-compute-sdk is not installed where the worker runs: {_here()}"
        ) from None
    code = getattr(task[0], "__code__", None)
    if _BYTECODE_IS_UNDERSTOOD and isinstance(code, CodeType) and _is_foreign(code):
        raise CannotRunHere(
            f"The function came as bytecode of another Python: {_versions()}. Use the same Python (major.minor) on both"
            " sides, or send functions as text:"
            " Executor(..., serializer=ComputeSerializer(strategy_code=PureSourceTextInspect()))"
        )
    return task


@functools.lru_cache(maxsize=256)
def _is_foreign(code: CodeType) -> bool:
    """Whether this bytecode, that of inner functions included, is certainly not of this Python.

    Each Python has its own numbers for instructions, and leaves its own number of empty places after some of them. What
    is not recognized is mostly so simple that it runs on both.
    """
    units, at, marked = code.co_code, 0, _MARK is None
    while at < len(units):
        places = _PLACES.get(units[at])
        end = at + 2 * (places or 0) + 2
        if places is None or any(units[at + 2 : end]) or end > len(units):
            return True
        marked = marked or units[at] == _MARK
        at = end
    if not marked:
        return True
    return any(_is_foreign(const) for const in code.co_consts if isinstance(const, CodeType))


def _places() -> dict[int, int]:
    """How many empty places follow each instruction of this Python."""
    known: Any = getattr(opcode, "_inline_cache_entries", {})  # since 3.13 by name
    by_number = dict(enumerate(known)) if isinstance(known, list) else {opcode.opmap[n]: c for n, c in known.items()}
    return {number: by_number.get(number, 0) for name, number in opcode.opmap.items() if name != "CACHE"}


_PLACES = _places()
_MARK = opcode.opmap.get("RESUME")
"""An instruction that all bytecode has, since 3.11."""
_BYTECODE_IS_UNDERSTOOD = not _is_foreign(execute_task.__code__)
"""Whether all this is true of the Python that we run in; a future one may differ."""


@functools.lru_cache(maxsize=8)
def _serializer(allowed: tuple[str, ...]) -> Any:
    with partial_imports("globus_compute_sdk"):
        import globus_compute_sdk.errors
        import globus_compute_sdk.version  # noqa: F401 - below, and not later with all the rest
        from globus_compute_sdk.serialize import ComputeSerializer

    return ComputeSerializer(allowed_deserializer_types=allowed or None)


def _serialize(value: Any, strategies: Sequence[str] | None, limit: int) -> str:
    data: str = _serializer(()).serialize_from_list(value, strategies or ())
    if len(data) > limit:
        from globus_compute_sdk.errors import MaxResultSizeExceeded

        raise MaxResultSizeExceeded(len(data), limit)
    return data


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Raises TaskTimeout in this thread after the site's GC_TASK_TIMEOUT seconds; 0 or nothing: never.

    In a main thread also while it waits for something: a sleep, a socket, another program; what the task has started is
    killed. In other threads not before Python code runs again.
    """
    seconds = float(os.environ.get("GC_TASK_TIMEOUT") or 0)
    if seconds <= 0:
        yield
    elif threading.current_thread() is threading.main_thread():
        with _time_limit_by_signal(seconds):
            yield
    else:
        with _time_limit_by_thread(seconds):
            yield


@contextlib.contextmanager
def _time_limit_by_signal(seconds: float) -> Iterator[None]:
    begun = time.time()

    def end(number: int, frame: Any) -> None:
        _kill_children(begun)
        raise TaskTimeout

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, NAGGING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _time_limit_by_thread(seconds: float) -> Iterator[None]:
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    thread = ctypes.c_ulong(threading.get_ident())
    over, lock = threading.Event(), threading.Lock()

    def end() -> None:
        with lock:
            if not over.is_set():
                raise_in(thread, ctypes.py_object(TaskTimeout))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            over.set()
            raise_in(thread, None)
        timer.cancel()


def _kill_children(since: float) -> None:
    """Kills what the task has started: shells would outlive it."""
    with contextlib.suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            if child.create_time() > since - 1:  # it is in ticks
                child.kill()


def _error(error: BaseException, last_line: str) -> dict[str, Any]:
    name = type(error).__name__
    if name in ("MaxResultSizeExceeded", "CouldNotExecuteUserTaskError"):
        code, message, data = name, f"remote error: {error}", repr(error)
    elif isinstance(error, CannotRunHere):
        (code, message), data = USER_ERROR, f"{error}\n"
    else:
        (code, message), data = USER_ERROR, shortened(_traceback(error)) + last_line
    return {"data": data, "error_details": {"code": code, "user_message": message}}


def _traceback(error: BaseException) -> str:
    """The traceback without frames of ours, which are before the user's and, when the time is over, after them."""
    try:
        summary = traceback.TracebackException(type(error), error, error.__traceback__)
        summary.stack[:] = [frame for frame in summary.stack if frame.filename != __file__]
        return "".join(summary.format())
    except Exception:  # noqa: BLE001 - str() of a user's exception can itself fail
        return f"{type(error).__name__} (its text cannot be shown)\n"


def shortened(text: str) -> str:
    """The beginning and the end of a text that is too long, which say what happened and where."""
    left_out = len(text) - 2 * PART_OF_LONG_TEXT
    if left_out <= 0:
        return text
    return f"{text[:PART_OF_LONG_TEXT]}\n[... {left_out} characters left out ...]\n{text[-PART_OF_LONG_TEXT:]}"


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
    details = {"os": platform.platform(), "python_version": platform.python_version()}
    try:
        _serializer(())  # what the first task needs
        import dill  # type: ignore[import-untyped,unused-ignore]
        from globus_compute_sdk.version import __version__
    except Exception:  # noqa: BLE001 - a broken environment shows as the task's own traceback
        return details
    return {**details, "dill_version": dill.__version__, "globus_compute_sdk_version": __version__}


def difference() -> str:
    """A last line for an error that may be due to the client's versions; empty when they are like the worker's."""
    python, sdk = (os.environ.get(f"GC_USER_{name}_VERSION") for name in ("PYTHON", "SDK"))
    ours = _details()
    other_python = python is not None and _minor(python) != _minor(ours["python_version"])
    other_sdk = sdk is not None and sdk != ours.get("globus_compute_sdk_version", sdk)
    return f"This may be because the versions differ: {_versions()}.\n" if other_python or other_sdk else ""


def _versions() -> str:
    """Both sides' versions, as far as they are known."""
    python, sdk = (os.environ.get(f"GC_USER_{name}_VERSION", "?") for name in ("PYTHON", "SDK"))
    ours = _details()
    worker = f"Python {ours['python_version']} and globus-compute-sdk {ours.get('globus_compute_sdk_version', '?')}"
    client = (
        ""
        if python == sdk == "?"
        else f"the client that started the endpoint has Python {python} and globus-compute-sdk {sdk}, "
    )
    return f"{client}the worker has {worker} ({_here()})"


def _here() -> str:
    return f"{sys.executable} on {platform.node()}"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _flush() -> None:
    """What the task printed goes to the log now, not at the worker's end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
