"""Fork, drop, exec: starts one program as one account.

`start` returns as soon as the child exists. Its fate comes through `Started.report`, a pipe that closes on exec: end
of file means that the program runs; anything else is the step that failed (`read_report`). The manager waits for the
pipe in its event loop, because a step can take long: homes live on file systems that may hang.

The steps of the child, in order, each named in a failure report:
  signals       every disposition back to the default, nothing blocked
  session       a new session, so that terminals and process groups of ours do not reach the program
  limits        no core file and no reading of memory until exec
  identity      become the account, and prove it (become.py)
  keyring       a session keyring of its own; ours, and what it holds, is inherited otherwise
  descriptors   the named descriptors to their numbers, everything else closed: what comes next may hang
  home          enter the working directory, as the account
  log           make the folder, open the log for appending, as the account
  exec          the program replaces the child
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass

from mep.privileged import kernel
from mep.privileged.become import NotProven, become
from mep.privileged.spec import STDERR, STDOUT, LaunchSpec, check

_HIGH = 64
"""Descriptors are first copied to free numbers from here on, so that none is overwritten before it has been copied."""


@dataclass(frozen=True)
class Started:
    """A child between fork and exec. `pidfd` and `report` are the caller's to close."""

    pid: int
    pidfd: int
    report: int


@dataclass(frozen=True)
class LaunchFailure:
    """The step that failed, and why: the errno, or 0 and a text when a proof failed."""

    step: str
    errno: int
    text: str


def start(spec: LaunchSpec) -> Started:
    """Forks a child that becomes the account and executes the program of `spec`.

    Raises:
        LaunchRefused: the spec breaks a rule (spec.py); nothing was started.
        OSError: no process, descriptor or memory to be had; nothing was started.
    """
    check(spec)
    last_capability = kernel.last_capability()
    report, child_report = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(report)
        os.close(child_report)
        raise
    if pid == 0:
        _child(spec, child_report, last_capability)
    os.close(child_report)
    try:
        return Started(pid, os.pidfd_open(pid), report)
    except OSError:  # no descriptor to be had: nobody could ever reap this child
        os.close(report)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def read_report(data: bytes) -> LaunchFailure | None:
    """What the bytes read from `Started.report` until its end say: None when the program was executed."""
    if not data:
        return None
    step, errno, text = data.decode("utf-8", "replace").split(":", 2)
    return LaunchFailure(step, int(errno), text)


def _child(spec: LaunchSpec, report: int, last_capability: int) -> None:
    """Never returns: executes the program, or reports the failed step and exits with status 127."""
    step = "signals"
    try:
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        for step, action in _steps(spec, report, last_capability):  # noqa: B007 - the reports below name the step
            action()
    except NotProven as e:
        _report(report, step, 0, f"not proven: {e}")
    except OSError as e:
        _report(report, step, e.errno or 0, e.strerror or "")
    except BaseException as e:  # noqa: BLE001 - whatever it was, it ends here
        _report(report, step, 0, type(e).__name__)
    finally:
        os._exit(127)  # also when the report failed: the child must never return into the manager's code


def _steps(spec: LaunchSpec, report: int, last_capability: int) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("signals", _reset_signals),
        ("session", os.setsid),
        ("limits", _forbid_dumps),
        ("identity", lambda: become(spec.uid, spec.gid, spec.groups, last_capability)),
        ("keyring", kernel.join_new_session_keyring),
        ("descriptors", lambda: _arrange(spec, report)),
        ("home", lambda: _enter(spec.directory)),
        ("log", lambda: _open_log(spec.log)),
        ("exec", lambda: os.execve(spec.argv[0], spec.argv, dict(spec.environment))),  # noqa: S606 - no shell, as meant
    ]


def _report(report: int, step: str, errno: int, text: str) -> None:
    os.write(report, f"{step}:{errno}:{text}".encode())


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        if number in (signal.SIGKILL, signal.SIGSTOP) or 32 <= number < signal.SIGRTMIN:
            continue
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _forbid_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    kernel.set_dumpable(False)


def _enter(directory: str) -> None:
    os.umask(0o077)
    os.chdir(directory)


def _open_log(log: tuple[str, str] | None) -> None:
    """Standard output and error to the log. Both are open already, so the log never becomes descriptor 1 by itself."""
    if log is None:
        return
    folder, name = log
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - no pathlib between fork and exec
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(f"{folder}/{name}", flags, 0o600)
    os.set_blocking(descriptor, True)
    os.dup2(descriptor, STDOUT)
    os.dup2(descriptor, STDERR)


def _arrange(spec: LaunchSpec, report: int) -> None:
    """Moves the named descriptors to their numbers and closes all others but the report, which exec closes."""
    copies = {
        number: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH) for number, descriptor in spec.descriptors.items()
    }
    for number, copy in copies.items():
        os.dup2(copy, number, inheritable=True)
    _close_all_but([*spec.descriptors, *((STDOUT, STDERR) if spec.log else ()), report])


def _close_all_but(kept: list[int]) -> None:
    low = 0
    for descriptor in sorted(kept):
        if low < descriptor:  # an empty range that begins at 0 would close everything
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
