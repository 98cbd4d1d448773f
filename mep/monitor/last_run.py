"""How the last run of a manager ended, or for what it waits, in a file of its run folder, for `mep status`."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from mep.profile import whole_file

_WAITS, _RUNS, _STOPPED, _FAILED = "waits", "runs", "stopped", "failed"
_MAX_REASON = 4000


def _write(run_directory: Path, state: str, reason: str = "") -> None:
    """Nothing depends on it, so nothing fails when it cannot be written."""
    with contextlib.suppress(OSError):
        run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = {"state": state, "time": time.time(), "reason": reason[:_MAX_REASON]}
        whole_file.replace(run_directory / "last.json", json.dumps(facts))


def waits(run_directory: Path, reason: str) -> None:
    """It cannot serve yet."""
    _write(run_directory, _WAITS, reason)


def runs(run_directory: Path) -> None:
    """It begins to serve; unless another word comes, it was killed."""
    _write(run_directory, _RUNS)


def stopped(run_directory: Path) -> None:
    """It was stopped, and has ended in good order."""
    _write(run_directory, _STOPPED)


def failed(run_directory: Path, reason: str) -> None:
    """It did not start, or ended by itself."""
    _write(run_directory, _FAILED, reason)


def ended_badly(run_directory: Path) -> bool:
    """Whether it failed, or was killed; not when nobody knows. Asked when none runs. Raises PermissionError."""
    facts = _read(run_directory)
    return facts is not None and facts["state"] not in (_STOPPED, _WAITS)


def describe(run_directory: Path) -> str:
    """How it ended, as a sentence; nothing when nobody knows. Raises PermissionError."""
    facts = _read(run_directory)
    if facts is None:
        return ""
    when = facts["time"]
    if facts["state"] == _WAITS:
        return f"It waited from {when} on, and was ended: {facts['reason']}"
    if facts["state"] == _FAILED:
        return f"It failed at {when}: {facts['reason']}"
    if facts["state"] == _STOPPED:
        return f"It was stopped at {when}."
    return f"It began at {when} and ended without a word: it was killed, or crashed; the journal may know more."


def describe_wait(run_directory: Path) -> str:
    """For what one that is there waits, as a sentence; nothing when it does not. Raises PermissionError."""
    facts = _read(run_directory)
    if facts is None or facts["state"] != _WAITS:
        return ""
    return f"It waits since {facts['time']}: {facts['reason']}"


def _read(run_directory: Path) -> dict[str, str] | None:
    """Its state, the time as people read it, and the reason. None: nobody knows. Raises PermissionError."""
    try:
        facts = json.loads((run_directory / "last.json").read_bytes())
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["time"]))
        return {"state": facts["state"], "time": when, "reason": str(facts["reason"])}
    except PermissionError:
        raise
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
