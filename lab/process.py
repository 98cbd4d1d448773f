"""Ends a process that the lab has started: asks, waits, and kills what does not listen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

STOP_TIMEOUT = 90.0
"""Seconds from SIGTERM to SIGKILL; a manager gives its user endpoints thirty of them."""


def end(process: subprocess.Popen[Any] | None, what: str, failed: Callable[[str], Exception]) -> None:
    """Ends `process` by SIGTERM; harmless when there is none. `failed` makes the exception from a text.

    Raises:
        what `failed` makes: it had to be killed, or did not end with 0.
    """
    if process is None:
        return
    process.terminate()
    try:
        code = process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise failed(f"{what} did not end within {STOP_TIMEOUT:g} s") from None
    if code != 0:
        raise failed(f"{what} ended with exit code {code}")
