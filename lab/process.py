"""What the lab starts, and how it ends a process: asks, waits, and kills what does not listen."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

STOP_TIMEOUT = 90.0
"""Seconds from SIGTERM to SIGKILL; a manager gives its user endpoints thirty of them."""


R = TypeVar("R", bound="Running")


class Running(ABC):
    """Something that runs for a while: as a context manager it is started, and stopped in the end."""

    @abstractmethod
    def start(self) -> None:
        """Starts it, and waits until it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it; harmless when it does not run."""

    def __enter__(self: R) -> R:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


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
