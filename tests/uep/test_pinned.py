"""What may come in the name of a pinned function: its code and plain values, and nothing else that could be code."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from globus_compute_sdk.serialize import (
    AllDataStrategies,
    ComputeSerializer,
    DillDataBase64,
    JSONData,
    PureSourceTextInspect,
)

from tests.uep import functions
from uep import pinned
from uep.engines.base import TaskRequest
from wire import function_code, messages

TASK, FUNCTION = str(uuid.uuid4()), str(uuid.uuid4())
CODE = PureSourceTextInspect().serialize(functions.double)
HASH = function_code.sha256(CODE)


def task_of(*parts: str, **more: Any) -> TaskRequest:
    body = messages.pack(messages.Task(TASK, ComputeSerializer.pack_buffers(list(parts))))
    return TaskRequest(TASK, body, **more)


def arguments(strategy: Any = None) -> tuple[str, str]:
    strategy = strategy or JSONData()
    return strategy.serialize([1]), strategy.serialize({})


def buffer_of(body: bytes) -> str:
    task = messages.unpack(body)
    assert isinstance(task, messages.Task)
    return task.task_buffer


def test_a_task_as_pinned_goes_on() -> None:
    good = task_of(CODE, *arguments(), resource_specification={"num_nodes": 2, "priority": 0.5})
    good = replace(good, result_serializers=("globus_compute_sdk.serialize.concretes.JSONData",))
    checked = pinned.check(good, FUNCTION, HASH)
    assert buffer_of(checked.body) == buffer_of(good.body)
    assert replace(checked, body=b"") == replace(good, body=b"")


def test_what_goes_on_is_what_was_checked() -> None:
    """Of two values for one key, two readers may take different ones."""
    evil = json.dumps(ComputeSerializer.pack_buffers(["st\nevil:def evil(): pass", *arguments()]))
    good = json.dumps(ComputeSerializer.pack_buffers([CODE, *arguments()]))
    data = f'{{"task_id": "{TASK}", "task_buffer": {evil}, "task_buffer": {good}}}'
    body = b"\x01" + f'{{"message_type": "task", "data": {data}}}'.encode()
    checked = pinned.check(TaskRequest(TASK, body), FUNCTION, HASH)
    assert b"evil" not in checked.body


@pytest.mark.parametrize("strategy", [DillDataBase64(), AllDataStrategies()])
def test_arguments_that_could_run_code_are_refused_with_the_remedy(strategy: Any) -> None:
    for parts in ((arguments(strategy)[0], arguments()[1]), (arguments()[0], arguments(strategy)[1])):
        with pytest.raises(pinned.NotPinned, match=r"serializer=ComputeSerializer\(strategy_data=JSONData\(\)\)"):
            pinned.check(task_of(CODE, *parts), FUNCTION, HASH)


@pytest.mark.parametrize(
    "code", [CODE + " ", CODE.replace("st\n", "sd\n"), PureSourceTextInspect().serialize(functions.boom), ""]
)
def test_other_code_is_refused(code: str) -> None:
    with pytest.raises(pinned.NotPinned, match=f"{HASH} is pinned"):
        pinned.check(task_of(code, *arguments()), FUNCTION, HASH)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01{}",
        messages.pack(messages.Task(TASK, "x")),
        messages.pack(messages.Task(TASK, "")),
        task_of(CODE, arguments()[0]).body,
        task_of(CODE, *arguments(), CODE).body,
        messages.pack(messages.Task(TASK, "1\n\ud800" + ComputeSerializer.pack_buffers(list(arguments())))),
        messages.pack(messages.Task(TASK, f"+{len(CODE)}\n{CODE}" + ComputeSerializer.pack_buffers(list(arguments())))),
        messages.pack(messages.Result(TASK, "data")),
    ],
)
def test_what_is_no_task_is_refused(body: bytes) -> None:
    with pytest.raises(pinned.NotPinned, match="cannot be read"):
        pinned.check(TaskRequest(TASK, body), FUNCTION, HASH)


@pytest.mark.parametrize(
    "more",
    [
        {"resource_specification": {"launcher_options": "sh -c evil"}},
        {"resource_specification": {"num_nodes": "1; evil"}},
        {"resource_specification": {"num_nodes": [1]}},
        {"resource_specification": {"num_nodes": True}},
        {"result_serializers": ("antigravity.Evil",)},
        {"result_serializers": ("globus_compute_sdk.serialize.x/y.Evil",)},
        {"result_serializers": ("evil.globus_compute_sdk.serialize.JSONData",)},
        {"result_serializers": ("globus_compute_sdk.serialize.concretes.JSONData\n",)},
        {"result_serializers": ("globus_compute_sdk.sdk.login_manager.Evil",)},
    ],
)
def test_headers_that_could_become_code_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(pinned.NotPinned, match="This endpoint takes"):
        pinned.check(task_of(CODE, *arguments(), **more), FUNCTION, HASH)
