"""`POST /v2/submit`: a submission and its answer, in the form of clients before SDK 2.3 and `ComputeClientV2.submit`.

    {"tasks": [[function id, endpoint id, packed arguments], ...], "task_group_id"?, "create_websocket_queue"?, ...}
    {"response": "success", "task_group_id": ..., "results": [{"task_uuid": ..., "status": "success", ...}, ...]}

Each task names its endpoint; here all of them have to name the same, as a submission is taken in full or not at all.
Such clients make up the ids of their task groups. What newer clients send besides (`user_endpoint_config` and so on) is
read as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hub import submission
from hub.submission import Submission
from hub.web import Invalid, field, uuid_field


def decode(body: Mapping[str, Any]) -> tuple[str, list[str], Submission]:
    """Reads the body; returns the endpoint, the function of each task as it was written, and the submission.

    Raises:
        Invalid: the body does not fit; the text names the field.
    """
    tasks = field(body, "tasks", list)
    if not tasks or not all(_is_task(task) for task in tasks):
        raise Invalid("tasks: expected [[function id, endpoint id, packed arguments], ...] with at least one task")
    asked_for = {uuid_field(endpoint, "tasks") for _, endpoint, _ in tasks}
    if len(asked_for) > 1:
        raise Invalid("tasks: they name several endpoints; submit what is for each of them in a batch of its own")
    calls: dict[str, list[str]] = {}
    for function, _, arguments in tasks:
        calls.setdefault(function, []).append(arguments)
    queue = field(body, "create_queue", bool, False) or field(body, "create_websocket_queue", bool, False)
    decoded = submission.decode({**body, "tasks": calls, "create_queue": queue})
    return asked_for.pop(), [function for function, _, _ in tasks], replace(decoded, group_may_be_new=True)


def answer(told: Mapping[str, Any], functions: Sequence[str]) -> dict[str, Any]:
    """Makes the answer of what `Submitter.submit` has told: the tasks in the order in which they came."""
    ids = {function: iter(tasks) for function, tasks in told["tasks"].items()}
    return {
        "response": "success",
        "task_group_id": told["task_group_id"],
        "endpoint_id": told["endpoint_id"],
        "results": [
            {"status": "success", "task_uuid": next(ids[function]), "http_status_code": 200, "reason": None}
            for function in functions
        ],
    }


def _is_task(task: Any) -> bool:
    return isinstance(task, list) and len(task) == 3 and all(isinstance(part, str) for part in task)
