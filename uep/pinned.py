"""Checks a task against what the site has pinned: the SHA-256 of the code of each function that may run.

`broker.dispatcher` calls `check` for each task of such an endpoint, before anything of the task is deserialized. Who
sends the task (the service, and whoever may have taken it over) then chooses among the pinned functions, and says with
which values they are called; nothing that it says is code:

    function                 its text has the pinned hash
    arguments                are JSON (the SDK's JSONData): deserialized, any other form could run code
    resource_specification   has numbers only: launcher options become a part of a command line
    result_serializers       are the SDK's own: a worker imports what they name

What the engine gets is packed anew from what was checked, whatever another reader would have seen in the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from uep.engines.base import TaskRequest
from wire import function_code, messages

_JSON = "11\n"
_SERIALIZER = re.compile(r"globus_compute_sdk\.serialize(\.[a-z_]{1,40})?\.[A-Za-z0-9]{1,80}", re.ASCII)


class NotPinned(Exception):
    """The task may not run here; the text is for its user."""


def check(task: TaskRequest, function_id: str, digest: str) -> TaskRequest:
    """Returns the task as it may run.

    Args:
        digest: the pinned SHA-256 of its function.

    Raises:
        NotPinned: the site has not allowed what came.
    """
    try:
        parts = _parts(messages.unpack(task.body))
        found = function_code.sha256(parts[0])
    except (messages.MessageError, function_code.NotPacked) as e:
        raise NotPinned(f"The task cannot be read, as it must be where functions are pinned: {e}") from None
    if found != digest:
        raise NotPinned(
            f"The code that came for function {function_id} is not the code that this endpoint allows: its SHA-256 is"
            f" {found}, and {digest} is pinned. A registered function never changes: please tell the administrators of"
            " the endpoint"
        )
    if not all(part.startswith(_JSON) for part in parts[1:]):
        raise NotPinned(
            "This endpoint takes arguments as JSON only, because its functions are pinned. Submit with"
            " Executor(..., serializer=ComputeSerializer(strategy_data=JSONData())), both of"
            " globus_compute_sdk.serialize; arguments are then numbers, text, lists and dictionaries"
        )
    _check_resources(task.resource_specification)
    for name in task.result_serializers:
        if not _SERIALIZER.fullmatch(name):
            raise NotPinned(f"This endpoint takes result_serializers of globus_compute_sdk only, not {name[:80]!r}")
    return replace(task, body=messages.pack(messages.Task(task.task_id, function_code.join(parts))))


def _parts(message: messages.Message) -> list[str]:
    """The function, its arguments and its named arguments, serialized. Raises NotPacked."""
    if not isinstance(message, messages.Task):
        raise function_code.NotPacked("it is not a task")
    parts = function_code.split(message.task_buffer)
    if len(parts) != 3:
        raise function_code.NotPacked(f"{len(parts)} parts instead of function, arguments and named arguments")
    return parts


def _check_resources(resources: Mapping[str, object]) -> None:
    for name, value in resources.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotPinned(
                f"This endpoint takes numbers only in resource_specification, because its functions are pinned, not"
                f" {str(name)[:40]!r}: {str(value)[:80]!r}"
            )
