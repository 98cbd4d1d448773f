"""What a reload came to, for whoever asked: `mep reload` writes a request, signals the manager, and reads the answer.

Two files in the endpoint's folder below /run, which is root's. `mep reload` (`ask`) writes an id into the one and sends
SIGHUP; the manager (`Answers`) reads the id at the signal, and writes it with the outcome into the other. A signal
without a request reloads all the same. Whoever asks holds a lock, so that one request is answered after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep.processes.pidfd import has_ended
from mep.profile import whole_file

TIMEOUT = 110.0
"""Seconds that `ask` waits: less than the unit allows a reload (TimeoutStartSec), so that the words are ours."""
_PAUSE = 0.05


@dataclass(frozen=True)
class Answer:
    """taken: whether the edited profile is in force. text: what else is to be said; why not, if it is not."""

    taken: bool
    text: str


class NoAnswer(Exception):
    """The manager cannot be asked, has ended, or said nothing for long. The text says which."""


class Answers:
    """The manager's side."""

    def __init__(self, run_directory: Path) -> None:
        self._request, self._answer = _request(run_directory), _answer(run_directory)

    def ready(self) -> None:
        """Says that from now on a SIGHUP is a reload."""
        self._write({})

    def requested(self) -> str:
        """The id of the newest request; empty without one."""
        try:
            return self._request.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""

    def tell(self, request: str, taken: bool, text: str) -> None:
        """Answers a request."""
        self._write({"request": request, "taken": taken, "text": text})

    def remove(self) -> None:
        """Nothing is answered any more."""
        for path in (self._request, self._answer):
            path.unlink(missing_ok=True)

    def _write(self, facts: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a full /run must not keep a profile from being in force
            whole_file.replace(self._answer, json.dumps({"pid": os.getpid(), **facts}))


def ask(run_directory: Path, pid: int) -> Answer:
    """Has the manager, process `pid`, read its profile again, and waits for what it says.

    Raises:
        NoAnswer: see there.
        PermissionError: only root may.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise NoAnswer("the manager has just ended") from None
    try:
        with _request(run_directory).open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _read(run_directory, pid) is None:  # a signal would end it now
                raise NoAnswer("the manager is still starting; try again when it is connected")
            request = secrets.token_hex(8)
            file.truncate(0)
            file.write(request)
            file.flush()
            signal.pidfd_send_signal(pidfd, signal.SIGHUP)
            return _wait(run_directory, pid, pidfd, request)
    except (FileNotFoundError, ProcessLookupError):
        raise NoAnswer("the manager has just ended") from None
    finally:
        os.close(pidfd)


def _wait(run_directory: Path, pid: int, pidfd: int, request: str) -> Answer:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        facts = _read(run_directory, pid) or {}
        if facts.get("request") == request:
            return Answer(bool(facts["taken"]), str(facts["text"]))
        if has_ended(pidfd, _PAUSE):
            raise NoAnswer("the manager ended before it had read the profile; see its log")
    raise NoAnswer(f"the manager has not answered for {TIMEOUT:g} s; see its log")


def _read(run_directory: Path, pid: int) -> dict[str, Any] | None:
    """What this manager has written; None before it has, or when it was another one."""
    try:
        facts: dict[str, Any] = json.loads(_answer(run_directory).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return facts if facts.get("pid") == pid else None


def _request(run_directory: Path) -> Path:
    return run_directory / "reload.request"


def _answer(run_directory: Path) -> Path:
    return run_directory / "reload.answer"
