from __future__ import annotations

import argparse
import ast
import codecs
import opcode
import os
import platform
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from globus_compute_sdk import MPIFunction, ShellFunction
from globus_compute_sdk.serialize import ComputeSerializer, DillCode, DillDataBase64, JSONData, PureSourceTextInspect

from tests.uep import functions
from uep.workers import bytecode, execution
from wire import messages

TASK, ENDPOINT = str(uuid.uuid4()), str(uuid.uuid4())
serializer = ComputeSerializer()


@pytest.fixture(autouse=True)
def this_process_stays_as_it_is() -> Iterator[None]:
    cwd, env = os.getcwd(), dict(os.environ)
    yield
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)


def task(function: Callable[..., Any], *args: Any) -> bytes:
    code = PureSourceTextInspect().serialize(function)
    buffers = [code, serializer.serialize(args), serializer.serialize({})]
    return messages.pack(messages.Task(TASK, serializer.pack_buffers(buffers)))


def run(packed: bytes, directory: Path, **options: Any) -> messages.Result:
    result = messages.unpack(execution.execute_task(packed, TASK, ENDPOINT, run_dir=str(directory), **options))
    assert isinstance(result, messages.Result)
    assert result.task_id == TASK
    return result


def test_value(tmp_path: Path) -> None:
    result = run(task(functions.double, 21), tmp_path)
    assert serializer.deserialize(result.data) == 42
    assert result.error_details is None
    assert result.details is not None
    assert set(result.details) == {
        "os",
        "python_version",
        "dill_version",
        "globus_compute_sdk_version",
        "endpoint_id",
    }
    assert result.details["endpoint_id"] == ENDPOINT
    assert [(t.state, t.actor) for t in result.task_statuses] == [
        ("execution-start", "worker"),
        ("execution-end", "worker"),
    ]
    assert result.task_statuses[0].timestamp < result.task_statuses[1].timestamp


def test_error_shows_the_users_frames_only(tmp_path: Path) -> None:
    result = run(task(functions.boom), tmp_path)
    assert result.error_details == messages.ErrorDetails(
        "RemoteExecutionError", "An error occurred during the execution of this task"
    )
    assert result.data.startswith("Traceback (most recent call last):\n")
    assert result.data.endswith("ValueError: no\n")
    assert "in boom" in result.data
    assert "in inner" in result.data
    assert "worker.py" not in result.data


@pytest.mark.parametrize(
    ("function", "says"),
    [(functions.leave, "SystemExit: 3"), (functions.unprintable, "Strange"), (functions.unserializable, "failed")],
)
def test_whatever_it_raises_is_a_result(function: Callable[..., Any], says: str, tmp_path: Path) -> None:
    result = run(task(function), tmp_path)
    assert result.error_details is not None
    assert says in result.data


def test_too_large(tmp_path: Path) -> None:
    result = run(task(functions.zeros, 11 * 2**20), tmp_path)
    assert result.error_details is not None
    assert result.error_details.code == "MaxResultSizeExceeded"
    assert "exceeded current limit of 10485760B" in result.error_details.user_message
    advice, as_the_public_one = result.data.splitlines()
    size = as_the_public_one.removeprefix("MaxResultSizeExceeded(").removesuffix(", 10485760)")
    assert int(size) > 11 * 2**20
    assert f"has {size} bytes, packed as text" in advice
    assert "Write it to a file" in advice


@pytest.mark.parametrize("body", [b"", b"\x01{}", b"\x01[1]", b"no", b'\x01{"message_type": "task", "data": null}'])
def test_not_a_task(body: bytes, tmp_path: Path) -> None:
    result = run(body, tmp_path)
    assert result.error_details is not None
    assert result.error_details.code == "CouldNotExecuteUserTaskError"


def test_surroundings(tmp_path: Path) -> None:
    seen = serializer.deserialize(run(task(functions.whereabouts), tmp_path / "a" / "b").data)
    assert (seen["cwd"], seen["task"], seen["sandbox"]) == (str(tmp_path / "a" / "b"), TASK, None)


def test_sandbox(tmp_path: Path) -> None:
    seen = serializer.deserialize(run(task(functions.whereabouts), tmp_path, run_in_sandbox=True).data)
    assert seen["cwd"] == seen["sandbox"] == str(tmp_path / TASK)
    assert list(tmp_path.iterdir()) == []  # it has left nothing there
    run(task(functions.write, "here"), tmp_path, run_in_sandbox=True)
    assert (tmp_path / TASK / "here").exists()


class ShellFunctionOfAUser(ShellFunction):
    pass


@pytest.mark.parametrize("kind", [ShellFunction, MPIFunction, ShellFunctionOfAUser])
def test_a_shell_function_of_an_older_sdk(kind: type[ShellFunction], tmp_path: Path) -> None:
    """One that knows of `cmd` alone: SDK 3.x lacks `return_dict`, and others before it lacked other options."""
    function = kind("echo said")
    for option in ("stdout", "stderr", "walltime", "snippet_lines", "return_dict"):
        delattr(function, option)
    buffers = [DillCode().serialize(function), serializer.serialize(()), serializer.serialize({})]
    result = run(messages.pack(messages.Task(TASK, serializer.pack_buffers(buffers))), tmp_path)
    assert serializer.deserialize(result.data).stdout == "said\n"


def test_timeout_of_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_TASK_TIMEOUT", "0.1")
    result = run(task(functions.spin, 10), tmp_path)
    assert result.error_details is not None
    assert "TaskTimeout: the task ran longer than the 0.1 s that the site allows" in result.data
    assert "worker.py" not in result.data
    assert run(task(functions.double, 1), tmp_path).error_details is None


def test_serializers(tmp_path: Path) -> None:
    wanted = [f"{JSONData.__module__}.JSONData"]
    assert run(task(functions.double, 1), tmp_path, result_serializers=wanted).data.startswith(JSONData.identifier)
    allowed = ["globus_compute_sdk.*Code", f"{JSONData.__module__}.JSONData"]
    refused = run(task(functions.double, 1), tmp_path, task_deserializers=allowed)
    assert refused.error_details is not None
    assert DillDataBase64.__name__ in refused.data


def test_long_tracebacks_keep_their_ends(tmp_path: Path) -> None:
    result = run(task(functions.complain, 30 * 2**20), tmp_path)
    assert len(result.data) < 2 * execution.PART_OF_LONG_TEXT + 100
    assert result.data.startswith("Traceback (most recent call last):\n")
    assert result.data.endswith("and that is all\n")
    assert "characters left out ...]" in result.data


def test_bytecode_of_this_python_is_known_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not of this Python never runs: it would end the process."""
    assert bytecode._IS_UNDERSTOOD
    standard = (Path(module.__file__ or "") for module in (ast, traceback, argparse))
    assert not any(bytecode.is_foreign(compile(path.read_text(), path, "exec")) for path in standard)
    code = functions.double.__code__
    unknown = next(number for number in range(255, 0, -1) if number not in opcode.opmap.values())
    function = FunctionType(code.replace(co_code=bytes([unknown, 0]) + code.co_code), {"__name__": "__main__"})
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", "3.99.1")
    buffers = [DillCode().serialize(function), serializer.serialize((1,)), serializer.serialize({})]
    result = run(messages.pack(messages.Task(TASK, serializer.pack_buffers(buffers))), tmp_path)
    assert result.error_details is not None
    assert "bytecode of another Python: the client that started the endpoint has Python 3.99.1 and" in result.data


@pytest.mark.parametrize(("python", "sdk"), [("3.99.1", None), (platform.python_version(), "0.1")])
def test_a_task_that_cannot_be_read_names_different_versions(
    python: str, sdk: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_there = "01\n" + codecs.encode(b"cnot_there\nfunction\n.", "base64").decode()
    buffers = [not_there, serializer.serialize(()), serializer.serialize({})]
    packed = messages.pack(messages.Task(TASK, serializer.pack_buffers(buffers)))
    alike = run(packed, tmp_path)
    assert "No module named 'not_there'" in alike.data
    assert "versions" not in alike.data
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", python)
    if sdk is not None:
        monkeypatch.setenv("GC_USER_SDK_VERSION", sdk)
    last = run(packed, tmp_path).data.splitlines()[-1]
    assert last.startswith("This may be because the versions differ: the client that started the endpoint has Python ")
    assert (
        f"Python {python} and globus-compute-sdk {sdk or '?'}, the worker has Python {platform.python_version()}"
        in last
    )
    assert "versions differ" not in run(task(functions.boom), tmp_path).data
