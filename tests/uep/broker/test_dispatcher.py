"""What the dispatcher answers itself, and what it tells the audit trail."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from globus_compute_sdk.serialize import ComputeSerializer

from tests.uep.broker.stubs import StubEngine, delivery
from uep.audit import Audit
from uep.broker.dispatcher import Dispatcher
from uep.workers.serialization import RESULT_LIMIT
from wire import function_code, messages

TASK, FUNCTION = str(uuid.uuid4()), str(uuid.uuid4())


def result(answers: list[bytes]) -> messages.Result:
    (packed,) = answers
    unpacked = messages.unpack(packed)
    assert isinstance(unpacked, messages.Result)
    return unpacked


@pytest.mark.parametrize(
    "headers",
    [{"resource_specification": "{"}, {"resource_specification": "[1]"}, {"result_serializers": 1}],
)
def test_headers_that_cannot_be_read(headers: dict[str, object], tmp_path: Path) -> None:
    engine, answers = StubEngine(tmp_path), []
    Dispatcher(engine, Audit(None, pytest.fail)).submit(TASK, delivery(1, TASK, **headers), answers.append)
    assert "Failed to start task" in result(answers).data
    assert engine.requests == []


def test_functions_that_are_not_allowed(tmp_path: Path) -> None:
    engine, answers = StubEngine(tmp_path), []
    dispatcher = Dispatcher(engine, Audit(None, pytest.fail), frozenset({FUNCTION}))
    dispatcher.submit(TASK, delivery(1, TASK), answers.append)
    assert "is not permitted" in result(answers).data
    assert engine.requests == []
    dispatcher.submit(TASK, delivery(2, TASK, function_uuid=FUNCTION.upper()), answers.append)
    assert len(engine.requests) == 1


def test_the_audit_trail_says_what_becomes_of_a_task(tmp_path: Path) -> None:
    engine, answers = StubEngine(tmp_path), []
    reader, writer = os.pipe()
    dispatcher = Dispatcher(engine, Audit(writer, pytest.fail))
    dispatcher.submit(TASK, delivery(1, TASK, function_uuid=FUNCTION), answers.append)
    engine.end(TASK)
    said = os.read(reader, 1000).decode()
    assert said == "".join(f"fid={FUNCTION} tid={TASK} bid= {word}" for word in ("RECEIVED", "EXEC_START", "EXEC_END"))
    os.close(reader)
    os.close(writer)


def test_a_result_is_no_larger_than_the_service_takes(tmp_path: Path) -> None:
    engine, answers = StubEngine(tmp_path), []
    Dispatcher(engine, Audit(None, pytest.fail)).submit(TASK, delivery(1, TASK), answers.append)
    engine.end(TASK, "x" * (RESULT_LIMIT + 1))
    details = result(answers).error_details
    assert details is not None
    assert details.code == "MaxResultSizeExceeded"


def test_tasks_are_held_to_the_pins_of_their_functions(tmp_path: Path) -> None:
    """What is not as pinned is told and on record, and the engine never sees it."""
    engine, answers = StubEngine(tmp_path), []
    reader, writer = os.pipe()
    code, packed = "st\nf:def f(): pass", ComputeSerializer.pack_buffers(["11\n[]", "11\n{}"])
    pins = {FUNCTION: function_code.sha256(code)}
    dispatcher = Dispatcher(engine, Audit(writer, pytest.fail), frozenset(), pins)
    for tag, sent in enumerate((code, code + " ")):
        body = messages.pack(messages.Task(TASK, ComputeSerializer.pack_buffers([sent]) + packed))
        dispatcher.submit(TASK, delivery(tag, TASK, body, function_uuid=FUNCTION.upper()), answers.append)
    assert [task.body for task in engine.requests] == [
        messages.pack(messages.Task(TASK, ComputeSerializer.pack_buffers([code]) + packed))
    ]
    details = result(answers).error_details
    assert details is not None
    assert details.code == "FUNCTION_NOT_ALLOWED"
    assert os.read(reader, 1000).decode().endswith(" FAILED - Not as pinned on endpoint")
    dispatcher.submit(TASK, delivery(3, TASK), answers.append)
    assert len(engine.requests) == 1
    assert "is not permitted" in result(answers[1:]).data
    os.close(reader)
    os.close(writer)
