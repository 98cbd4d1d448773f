"""Submissions in the form of older clients: decoded, and answered in their order."""

from __future__ import annotations

import pytest

from hub.batches import answer, decode
from hub.web import Invalid
from tests.hub.units import new_id

ENDPOINT = new_id()


def test_a_batch_is_a_submission():
    body = {
        "tasks": [["f", ENDPOINT.upper(), "a"], ["g", ENDPOINT, "b"], ["f", ENDPOINT, "c"]],
        "create_websocket_queue": True,
        "user_endpoint_config": {"x": 1},
    }
    endpoint, functions, submission = decode(body)
    assert (endpoint, functions) == (ENDPOINT, ["f", "g", "f"])
    assert submission.calls == {"f": ["a", "c"], "g": ["b"]}
    assert submission.create_queue
    assert submission.group_may_be_new
    assert submission.user_opts == {"x": 1}
    told = answer({"task_group_id": "G", "endpoint_id": ENDPOINT, "tasks": {"f": ["1", "3"], "g": ["2"]}}, functions)
    assert [result["task_uuid"] for result in told["results"]] == ["1", "2", "3"]
    assert told["task_group_id"] == "G"


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        (None, "missing"),
        ({"f": ["a"]}, "wrong type"),
        ([], "at least one"),
        ([["f", ENDPOINT]], "expected"),
        ([["f", ENDPOINT, 1]], "expected"),
        ([[["f"], ENDPOINT, "a"]], "expected"),
        ([["f", "x", "a"]], "UUID"),
        ([["f", ENDPOINT, "a"], ["f", new_id(), "a"]], "several endpoints"),
    ],
)
def test_what_is_no_batch_is_refused(tasks, text):
    with pytest.raises(Invalid, match=text):
        decode({"tasks": tasks})
