"""Runs the commands of batch systems for Parsl's providers: sbatch, squeue, qstat and the like.

Parsl leaves behind what a command that runs into its time limit has started, and writes a traceback each time. Here the
whole process group is killed, and the command counts as one that failed: `TIMED_OUT`, with words that say so. `install`
puts that in the place of Parsl's own function, in this process; so it holds for every provider and every command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading

TIMED_OUT = 124
"""Exit code of a command that was killed at its time limit, as that of timeout(1)."""
TIMED_OUT_WORDS = "timed out: no answer within"
LAST_WORDS = 1.0
"""Seconds for the pipes of a killed command to be closed; who has left its process group may hold them open."""
QUESTIONS = ("sacct", "squeue", "qstat", "bjobs", "condor_q")
"""Programs that only ask: they may be killed at any time."""

_lock = threading.Lock()
_questions: set[subprocess.Popen[bytes]] = set()
_said = threading.local()


def install() -> None:
    """Has Parsl's providers run their commands here."""
    import parsl.providers.cluster_provider
    import parsl.providers.local.local

    parsl.providers.cluster_provider.execute_wait = run
    parsl.providers.local.local.execute_wait = run


def run(cmd: str, walltime: float | None = None) -> tuple[int, str, str]:
    """Runs a command line in a shell for at most `walltime` seconds; returns exit code, output and error output."""
    process = subprocess.Popen(  # noqa: S602 - Parsl's providers write command lines
        cmd,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if cmd.split(maxsplit=1)[0] in QUESTIONS:
        with _lock:
            _questions.add(process)
    try:
        out, err = process.communicate(timeout=walltime)
        code = process.returncode
    except subprocess.TimeoutExpired:
        code, out, err = TIMED_OUT, *_kill(process)
        err += f"{cmd.split(maxsplit=1)[0]}: {TIMED_OUT_WORDS} {walltime:g} s\n".encode()
    finally:
        with _lock:
            _questions.discard(process)
    _said.errors = err.decode(errors="replace")
    return code, out.decode(errors="replace"), _said.errors


def last_errors() -> str:
    """Returns the error output of the last command that this thread has run: some providers do not pass it on."""
    return str(getattr(_said, "errors", "")).strip()


def forget_errors() -> None:
    """Makes `last_errors` empty until the next command."""
    _said.errors = ""


def end_questions() -> None:
    """Kills the questions that are being asked: nobody wants to know any more."""
    with _lock:
        for process in _questions:
            _kill_group(process)


def _kill(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Kills the process with all that it started; returns what it has said."""
    _kill_group(process)
    try:
        return process.communicate(timeout=LAST_WORDS)
    except subprocess.TimeoutExpired as e:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return e.output or b"", e.stderr or b""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
