"""Fork, drop, exec: starts one program as one account.

`start` returns as soon as the child exists. Its fate comes through `Started.report`, a pipe that closes on exec: end
of file means that the program runs; anything else is the step that failed (`read_report`). The manager waits for the
pipe in its event loop, because a step can take long: homes live on file systems that may hang.

A child that is to be held stops once, still root and before it has touched anything of the account's: at the gate. It
writes HELD and waits to be released (`release`), so that whoever started it can put it where it belongs, and on record.
When the gate closes instead, because its parent gave it up or died, it ends.

The steps of the child, in order, each named in a failure report:
  signals       every disposition back to the default, nothing blocked
  session       a new session, so that terminals and process groups of ours do not reach the program
  limits        no core file and no reading of memory until exec
  others        close what the child inherited and needs for nothing: PAM may set a limit that it would be over
  account       ask the name service whether the account has these ids, whatever the rest of the manager was told
  admission     ask it for the groups that the site's policy names, and go by them
  loginuid      the account's uid becomes the login uid, once and for all; before PAM, whose pam_loginuid agrees with it
  (with PAM: keyring, as below; groups; pam account; pam credentials; pam session; pam keeper: see session.py)
  gate          wait to be released, if held
  identity      become the account, and prove it (become.py)
  keyring       a session keyring of its own; ours, and what it holds, is inherited otherwise
  handover      put what is handed over into a sealed file in memory: ours has held it and not read it
  descriptors   the named descriptors to their numbers, everything else closed: what comes next may hang
  home          enter the working directory, as the account
  log           make the folder, open the log for appending, as the account
  umask         that of the program: what a PAM module has set, else what the spec says, else 077
  resources     the program's resource limits, which are only ever lowered
  program       prove that the account cannot read the program, if it is an open file
  exec          the program replaces the child

A manager that is not root starts its own account only. There is nothing to drop then: `account`, `admission`,
`loginuid` and `keyring` are left out, as what an ordinary user starts has the user's rights, session and keys; and
`identity` proves that it is the account already.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mep.privileged import handover, kernel, session
from mep.privileged.become import (
    NotProven,
    become,
    prove_account,
    prove_admitted,
    prove_unreadable,
    stay,
    take_login_uid,
)
from mep.privileged.spec import STDERR, STDIN, STDOUT, check
from mep.request.launch_spec import LaunchSpec

HELD = b"\0"
"""The first byte of a report once the child waits at the gate."""

_GO = b"g"
_HIGH = 64
"""Descriptors are first copied to free numbers from here on, so that none is overwritten before it has been copied."""

_PRIVATE = 0o077
"""The umask of all steps: what the manager, PAM modules and this module make is for nobody else."""

Step = tuple[str, Callable[[], object]]


@dataclass(frozen=True)
class Started:
    """A child between fork and exec. The descriptors are the caller's to close; `gate` is there if it is held."""

    pid: int
    pidfd: int
    report: int
    gate: int | None = None


@dataclass(frozen=True)
class LaunchFailure:
    """The step that failed, and why: the errno, or 0 and a text when a proof failed or PAM said no."""

    step: str
    errno: int
    text: str


def start(spec: LaunchSpec, *, held: bool = False) -> Started:
    """Forks a child that becomes the account and executes the program of `spec`; if `held`, once it is released.

    Raises:
        LaunchRefused: the spec breaks a rule (spec.py); nothing was started.
        PamError: PAM is wanted and is not installed; nothing was started.
        OSError: no process, descriptor or memory to be had; nothing was started.
    """
    check(spec)
    if spec.pam is not None:
        session.load()
    last_capability = kernel.last_capability()
    with contextlib.ExitStack() as childs, contextlib.ExitStack() as ours:
        report, child_report = _pipe(ours, childs)
        child_gate, gate = _pipe(childs, ours) if held else (None, None)
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, kernel.HANDLED)
        ours.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        pid = os.fork()
        if pid == 0:
            if gate is not None:
                os.close(gate)  # the child must see its end when the parent is gone
            _child(spec, child_report, child_gate, last_capability, parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            started = Started(pid, os.pidfd_open(pid), report, gate)
        except OSError:  # no descriptor to be had: nobody could ever reap this child
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        ours.pop_all()
    return started


def release(started: Started) -> None:
    """Opens the gate. What has ended meanwhile says so in its report."""
    assert started.gate is not None, "was not held"
    with contextlib.suppress(BrokenPipeError):
        os.write(started.gate, _GO)


def read_report(data: bytes) -> LaunchFailure | None:
    """What the bytes read from `Started.report` until its end say: None when the program was executed."""
    data = data.removeprefix(HELD)
    if not data:
        return None
    step, errno, text = data.decode("utf-8", "replace").split(":", 2)
    return LaunchFailure(step, int(errno), text)


def _child(spec: LaunchSpec, report: int, gate: int | None, last_capability: int, parent: int) -> None:
    """Never returns: executes the program, or reports the failed step and exits with status 127."""
    step = "signals"
    try:
        gc.freeze()  # what is garbage would close descriptors, by numbers that are soon another's
        _end_with(parent)
        report = _high(report)
        for step, action in _steps(spec, report, gate, last_capability):  # noqa: B007 - the reports below name the step
            action()
    except NotProven as e:
        _report(report, step, 0, f"not proven: {e}")
    except session.PamError as e:
        _report(report, step, 0, str(e))
    except OSError as e:
        _report(report, step, e.errno or 0, e.strerror or "")
    except BaseException as e:  # noqa: BLE001 - whatever it was, it ends here
        _report(report, step, 0, type(e).__name__)
    finally:
        os._exit(127)  # also when the report failed: the child must never return into the manager's code


def _steps(spec: LaunchSpec, report: int, gate: int | None, last_capability: int) -> Iterator[Step]:
    pam = None if spec.pam is None else session.Session(spec.pam, spec.username)
    variables: dict[str, str] = {}
    program = None if spec.program is None else _high(spec.program)
    kept = [report] if program is None else [report, program]
    os.umask(_PRIVATE)  # whoever sets another one from here on is a PAM module
    yield "signals", _reset_signals
    yield "session", os.setsid
    yield "limits", _forbid_dumps
    handed_over = [part for part in spec.handed_over if isinstance(part, int)]
    needed = [STDIN, STDOUT, STDERR, *spec.descriptors.values(), *handed_over, *kept, *([] if gate is None else [gate])]
    yield "others", lambda: _close_all_but(needed)
    ours = not kernel.is_root()
    if not ours:
        yield "account", lambda: prove_account(spec)
        yield "admission", lambda: prove_admitted(spec.groups, spec.group_rule)
        yield "loginuid", lambda: take_login_uid(spec.uid, required=spec.login_uid_required)
    login_uid = kernel.login_uid()  # no PAM module may change it any more
    if pam is not None:
        yield "keyring", kernel.join_new_session_keyring  # before the session, which may have keys of its own
        yield "groups", lambda: os.setgroups(spec.groups)
        yield "pam account", pam.check_account
        yield "pam credentials", pam.establish_credentials
        yield "pam session", pam.open
        variables = pam.environment()
        yield "pam keeper", pam.keep
    inherited = os.umask(_PRIVATE)
    if gate is not None:
        yield "gate", lambda: _wait_at(gate, report)
    groups = spec.groups if pam is None else tuple(os.getgroups())  # to which PAM may have added
    if ours:
        yield "identity", lambda: stay(spec.uid, spec.gid, helper=spec.home is None)
    else:
        yield "identity", lambda: _become(spec, groups, last_capability, login_uid)
    if pam is None and not ours:
        yield "keyring", kernel.join_new_session_keyring
    descriptors = dict(spec.descriptors)
    if spec.handed_over:
        yield "handover", lambda: descriptors.update({STDIN: handover.put_together(spec.handed_over)})
    yield "descriptors", lambda: _arrange(descriptors, [] if spec.log is None else [STDOUT, STDERR], kept)
    yield "home", lambda: _enter(spec.directory)
    yield "log", lambda: _open_log(spec.log)
    yield "umask", lambda: os.umask(_umask(spec, inherited))
    yield "resources", lambda: _limit(spec)
    if program is not None:
        yield "program", lambda: prove_unreadable(program)
    executed = spec.argv[0] if program is None else program
    yield "exec", lambda: os.execve(executed, spec.argv, {**variables, **spec.environment})  # noqa: S606 - no shell, as meant


def _report(report: int, step: str, errno: int, text: str) -> None:
    os.write(report, f"{step}:{errno}:{text}".encode())


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Reading and writing end, each closed with the stack of who gets it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, reading)
    writer.callback(os.close, writing)
    return reading, writing


def _end_with(parent: int) -> None:
    """Until it has become the account, which undoes this: what it has inherited (locks, sockets) outlives nobody."""
    kernel.end_with_parent()
    if os.getppid() != parent:
        os._exit(127)


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


def _wait_at(gate: int, report: int) -> None:
    os.write(report, HELD)
    if os.read(gate, 1) != _GO:
        os._exit(127)  # nobody is left who would read a report


def _limit(spec: LaunchSpec) -> None:
    for number, limit in spec.rlimits.items():
        hard = resource.getrlimit(number)[1]
        lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (lower, lower))


def _become(spec: LaunchSpec, groups: tuple[int, ...], last_capability: int, login_uid: int | None) -> None:
    if 0 in groups:
        raise NotProven("PAM has added root's group")
    become(spec.uid, spec.gid, groups, last_capability, login_uid=login_uid, login=spec.pam is not None)


def _enter(directory: str) -> None:
    os.chdir(directory)


def _umask(spec: LaunchSpec, inherited: int) -> int:
    if spec.pam is not None and inherited != _PRIVATE:
        return inherited
    return _PRIVATE if spec.umask is None else spec.umask


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


def _high(descriptor: int) -> int:
    """A copy of it that exec closes, out of the way of the program's descriptors."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)


def _arrange(descriptors: Mapping[int, int], log: list[int], kept: list[int]) -> None:
    """Moves the named descriptors to their numbers and closes all others but `log`, and `kept`, which exec closes."""
    copies = {number: _high(descriptor) for number, descriptor in descriptors.items()}
    for number, copy in copies.items():
        os.dup2(copy, number, inheritable=True)
    _close_all_but([*descriptors, *log, *kept])


def _close_all_but(kept: list[int]) -> None:
    low = 0
    for descriptor in sorted(kept):
        if low < descriptor:  # an empty range that begins at 0 would close everything
            os.closerange(low, descriptor)
        low = descriptor + 1
    kernel.close_from(low)
