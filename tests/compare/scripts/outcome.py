"""What came of a script: a value or an exception, in a text form that says types, so that 1, True and 1.0 differ.

Of the exception of a task it has the last line and the frames of the traceback.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from globus_compute_sdk.errors import TaskExecutionFailed

LONG = 200
"""Characters of a text that is shown whole."""


def canonical(value: Any) -> str:
    """A text that two values share when a user would call them the same."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | bytes | bytearray) and len(value) > LONG:
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        return f"{kind} of {len(value)}, {hashlib.sha256(data).hexdigest()[:16]}"
    if isinstance(value, dict):
        inside = ", ".join(f"{canonical(k)}: {canonical(v)}" for k, v in value.items())
    elif isinstance(value, set | frozenset):
        inside = ", ".join(sorted(map(canonical, value)))
    elif isinstance(value, list | tuple):
        inside = ", ".join(map(canonical, value))
    else:
        inside = repr(value)
    return f"{kind}({inside})"


def outcome_of(run: Callable[[], Any]) -> dict[str, Any]:
    """What came of a script."""
    try:
        return {"value": canonical(run())}
    except TaskExecutionFailed as e:
        return {"error": _name(e), "remote": _last_line(e.remote_data), "frames": _frames(e.remote_data)}
    except BaseException as e:
        return {"error": _name(e), "text": str(e)[:500]}


def failure_of(run: Callable[[], Any]) -> str:
    """The name of the exception, and of a failed task also the last line of its traceback."""
    try:
        return f"no failure: {canonical(run())}"
    except TaskExecutionFailed as e:
        return f"TaskExecutionFailed: {_last_line(e.remote_data)}"
    except BaseException as e:
        return type(e).__name__


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip("- +")]
    return re.sub(r"on host [^\s:]+(?=:|$)", "on host HOST", lines[-1].strip()) if lines else ""


def _frames(text: str) -> list[list[str]]:
    return [list(found) for found in re.findall(r'^\W*File "(.*)", line \d+, in (.*)$', text, re.MULTILINE)]
