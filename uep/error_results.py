"""Makes error results in the endpoint itself, when no worker could.

All are packed, ready to be published. The texts reach the user; `data` is what the client shows as the error.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import replace

from uep.workers import serialization
from uep.workers.execution import shortened
from uep.workers.serialization import RESULT_LIMIT
from wire.messages import ErrorDetails, MessageError, Result, Transition, pack, unpack

TOLD = 6
"""Attempts at a task that its error tells of, when there were more."""
NOT_ALLOWED = "FUNCTION_NOT_ALLOWED"
EXECUTION_ERROR = ErrorDetails("RemoteExecutionError", "An error occurred during the execution of this task")


def failure(task_id: str, text: str, code: str = EXECUTION_ERROR.code) -> bytes:
    """Makes the result of a task that could not be run, or whose end nobody saw."""
    return pack(Result(task_id, data=text, error_details=ErrorDetails(code, text)))


def not_allowed(task_id: str, function_id: str | None, endpoint_id: str) -> bytes:
    """Makes the result of a task whose function the site does not allow here."""
    text = f"Function {function_id} is not permitted on endpoint {endpoint_id}"
    details = {"fid": function_id, "eid": endpoint_id}
    return pack(Result(task_id, text, details, ErrorDetails(NOT_ALLOWED, text)))


def stopped_while_running(task_id: str, why: str = "") -> bytes:
    """Makes the result of a task that was running, or waiting in the engine, when its endpoint stopped."""
    what = "The endpoint stopped before this task was finished; the task may have run in part. "
    return failure(task_id, what + (why or "Submit it again."))


def bounded(task_id: str, packed: bytes) -> bytes:
    """Returns the packed result itself, or an error in its place when it is none, or larger than the service takes.

    Our worker keeps to the limits itself; this holds for whatever another worker's code has sent.
    """
    if len(packed) <= RESULT_LIMIT:
        return packed
    try:
        result = unpack(packed)
    except MessageError:
        return failure(task_id, f"The worker's answer of {len(packed)} bytes cannot be read")
    if not isinstance(result, Result):
        return failure(task_id, f"The worker's answer of {len(packed)} bytes is not a result")
    if result.error_details is None:
        if len(result.data) <= RESULT_LIMIT:
            return packed
        error = too_large(task_id, len(result.data), RESULT_LIMIT)
        return pack(replace(error, details=result.details, task_statuses=result.task_statuses))
    details = ErrorDetails(result.error_details.code, shortened(result.error_details.user_message))
    return pack(replace(result, data=shortened(result.data), error_details=details))


def too_large_for_the_broker(task_id: str, size: int, limit: int) -> bytes:
    """Makes the result of a task whose own result the broker does not take."""
    return pack(too_large(task_id, size, limit, "message broker of this service"))


def too_large(task_id: str, size: int, limit: int, who: str = "service") -> Result:
    """Makes the result of a task whose own result has `size` bytes where no more than `limit` are taken."""
    message = f"remote error: Task result of {size}B exceeded current limit of {limit}B"
    text = serialization.too_large(size, limit, who)
    return Result(task_id, data=text, error_details=ErrorDetails("MaxResultSizeExceeded", message))


def system_failure(task_id: str, begun: int, attempts: Sequence[BaseException]) -> bytes:
    """Makes the result of a task that the engine lost, `attempts` times. `begun` is in ns since the epoch."""
    texts = [_text(e) for e in attempts]
    if len(texts) > 1:
        texts = [f"Attempt {n}: {text}" for n, text in enumerate(texts, 1)]
        if len(texts) > TOLD:
            texts = [*texts[: TOLD // 2], "...", *texts[-TOLD // 2 :]]
    started = Transition(begun, "waiting-for-launch", "interchange")
    return pack(Result(task_id, "\n".join(texts), None, EXECUTION_ERROR, (started,)))


def _text(error: BaseException) -> str:
    """Formats the error; a lost worker's by its mere name, by which clients give no advice on serializers."""
    text = "".join(traceback.format_exception_only(error)).rstrip()
    return text.removeprefix(f"{type(error).__module__}.") if type(error).__name__ == "WorkerLost" else text
