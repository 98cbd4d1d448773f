"""Our messages against the public package's reader and writer, both ways."""

from __future__ import annotations

import json
import uuid

import pytest
from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import EPStatusReport
from globus_compute_common.messagepack.message_types import Result as PublicResult
from globus_compute_common.messagepack.message_types import Task as PublicTask
from hypothesis import given
from hypothesis import strategies as st

from wire.messages import ErrorDetails, MessageError, Result, StatusReport, Task, Transition, pack, unpack

ID = "718f7a8a-07b2-46a8-ae3c-f9282cc6de6d"
RESULT = Result(
    ID,
    "00\ngARLAi4=\n",
    details={"os": "Linux", "endpoint_id": ID},
    error_details=ErrorDetails("RemoteExecutionError", "an error"),
    task_statuses=(Transition(1795231989166698385, "execution-start", "worker"),),
)


def test_the_public_package_reads_ours() -> None:
    public = messagepack.unpack(pack(RESULT))
    assert isinstance(public, PublicResult)
    assert str(public.task_id) == ID
    assert public.data == RESULT.data
    assert public.error_details is not None
    assert public.error_details.code == "RemoteExecutionError"
    assert public.task_statuses is not None
    assert public.task_statuses[0].timestamp == 1795231989166698385

    task = messagepack.unpack(pack(Task(ID, "code")))
    assert isinstance(task, PublicTask)
    assert (str(task.task_id), task.task_buffer) == (ID, "code")

    report = messagepack.unpack(pack(StatusReport(ID, {"heartbeat_period": 30})))
    assert isinstance(report, EPStatusReport)
    assert report.global_state == {"heartbeat_period": 30}


def test_we_read_the_public_package() -> None:
    public = PublicTask(task_id=uuid.UUID(ID), task_buffer="code")
    assert unpack(messagepack.pack(public)) == Task(ID, "code")
    assert unpack(messagepack.pack(messagepack.unpack(pack(RESULT)))) == RESULT
    report = EPStatusReport(endpoint_id=uuid.UUID(ID), global_state={"error": "no"}, task_statuses={})
    assert unpack(messagepack.pack(report)) == StatusReport(ID, {"error": "no"})


@given(data=st.text(), code=st.text(), stamp=st.integers(0, 2**63))
def test_what_is_packed_is_unpacked(data: str, code: str, stamp: int) -> None:
    result = Result(ID, data, {"k": 1}, ErrorDetails(code, data), (Transition(stamp, code, data),))
    assert unpack(pack(result)) == result


def test_what_is_told_of_an_unknown_message_is_short() -> None:
    for kind in ("x" * 10**6, ["\n" * 10**6], "\x1b[2J"):
        with pytest.raises(MessageError) as caught:
            unpack(b"\x01" + json.dumps({"message_type": kind}).encode())
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("deep", ["[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, "[" * 100_000])
def test_what_is_nested_too_deep_is_no_message(deep: str) -> None:
    """The JSON of the standard library reads it, or not, as deep as the stack happens to be; writing it again fails."""
    head = f'{{"endpoint_id": "{uuid.uuid4()}", "task_statuses": {{}}, "global_state":'
    raw = f'\x01{{"message_type": "ep_status_report", "data": {head} {{"a": {deep}}}}}}}'
    with pytest.raises(MessageError):
        unpack(raw.encode())


def test_unknown_fields_are_ignored() -> None:
    envelope = {"message_type": "task", "data": {"task_id": ID, "task_buffer": "x", "new": 1}, "new": 2}
    assert unpack(b"\x01" + json.dumps(envelope).encode()) == Task(ID, "x")


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"", "first byte"),
        (b"\x02{}", "first byte"),
        (b"\x01{", "JSON"),
        (b"\x01" + b"[" * 100_000, "JSON"),
        (b"\x01[]", "message_type"),
        (b'\x01{"message_type":["task"],"data":{}}', "message_type"),
        (b'\x01{"message_type":"task"}', "'data'"),
        (b'\x01{"message_type":"task","data":{"task_buffer":"x"}}', "'task_id'"),
        (b'\x01{"message_type":"task","data":{"task_id":"7","task_buffer":"x"}}', "UUID"),
        (b'\x01{"message_type":"result","data":{"task_id":"' + ID.encode() + b'","data":1}}', "'data'"),
        (
            b'\x01{"message_type":"result","data":{"task_id":"' + ID.encode() + b'","data":"","task_statuses":7}}',
            "statuses",
        ),
    ],
)
def test_what_is_no_message_is_refused_with_the_field(raw: bytes, names: str) -> None:
    with pytest.raises(MessageError, match=names):
        unpack(raw)
