"""PAM sessions with real service files, real modules, real accounts; and the process that closes them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import re
import secrets
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.waiting import until
from mep.privileged import session
from mep.privileged.session import PamError, Session

pytestmark = pytest.mark.usefixtures("root", "adopting")

PATIENCE = 20.0
"""Seconds after which a process that does not end is a failure."""
PERMIT = "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
_PR_GET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 3, 36
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def account() -> Iterator[LocalAccount]:
    with LocalAccount("meptest_pam") as made:
        yield made


@pytest.fixture
def adopting() -> Iterator[None]:
    """What would become init's children becomes ours: keepers can be found and waited for."""
    session.load()
    assert _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    for pid in keepers():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture
def service() -> Iterator[Callable[[str], str]]:
    """Makes a PAM service from the text of its file; its name."""
    made: list[Path] = []

    def make(text: str) -> str:
        made.append(Path("/etc/pam.d", f"mep-test-{secrets.token_hex(6)}"))
        made[-1].write_text(text)
        return made[-1].name

    yield make
    for path in made:
        path.unlink()


@pytest.fixture
def log(folder: Path) -> Path:
    """A file that everybody may append to."""
    path = folder / f"log-{secrets.token_hex(6)}"
    path.touch()
    path.chmod(0o666)
    return path


@pytest.fixture
def logged(service: Callable[[str], str], log: Path, tmp_path: Path) -> str:
    """A PAM service that logs when sessions are opened and closed, with what pam_exec knows of them."""
    return service(PERMIT + logging_line(log, tmp_path))


def logging_line(log: Path, tmp_path: Path) -> str:
    script = tmp_path / "log-session"
    script.write_text(f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER $PAM_TTY $PAM_RUSER" >>{log}\n')
    script.chmod(0o755)
    return f"session required pam_exec.so {script}\n"


def kinds(log: Path) -> list[str]:
    """The first word of every line."""
    return [line.split()[0] for line in log.read_text().splitlines()]


@dataclass(frozen=True)
class Program:
    """A process on its way through PAM to a shell script, or that script."""

    pid: int
    input: int
    output: int

    def end(self) -> tuple[str, int]:
        """Lets it go on and waits for it; what it printed, or why it was refused; its exit code."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.input, b"\n")  # not only its end: that does not come if somebody else has the pipe too
        os.close(self.input)
        with os.fdopen(self.output) as output:
            text = output.read()
        return text, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait_until_it_runs(self) -> None:
        """For scripts that begin with `echo`."""
        assert os.read(self.output, 100), "it ended at once"


def nothing(held: Session) -> None:
    pass


def begin(
    service: str,
    account: LocalAccount,
    script: str,
    *,
    first: Callable[[Session], object] = nothing,
    between: Callable[[Session], object] = nothing,
    instead: Callable[[Session], object] = nothing,
) -> Program:
    """Goes the way of a launch in a forked child.

    first: run before PAM; between: after the session has been opened; instead: before the exec.
    """
    output, child_output = os.pipe()
    child_input, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _go(Session(service, account.name), account, script, (child_input, child_output), (first, between, instead))
        except BaseException as e:
            os.write(child_output, f"refused: {type(e).__name__}: {e}".encode())
        finally:
            os._exit(127)
    os.close(child_output)
    os.close(child_input)
    return Program(pid, into, output)


def _go(
    held: Session,
    account: LocalAccount,
    script: str,
    ends: tuple[int, int],
    hooks: tuple[Callable[[Session], object], ...],
) -> None:
    first, between, instead = hooks
    os.setsid()
    signal.alarm(int(PATIENCE))  # goes on after the exec
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setgroups(os.getgrouplist(account.name, account.gid))
    first(held)
    held.check_account()
    held.establish_credentials()
    held.open()
    between(held)
    environment = held.environment()
    held.keep()
    instead(held)
    os.dup2(ends[0], 0)
    os.dup2(ends[1], 1)
    os.dup2(ends[1], 2)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    os.execve("/bin/sh", ["sh", "-c", script], {"PATH": "/usr/bin:/bin", **environment})


def run(service: str, account: LocalAccount, script: str, **hooks: Any) -> str:
    """What the script prints; its keeper has ended."""
    output, code = begin(service, account, script, **hooks).end()
    assert code == 0, output
    assert ended(keeper()) == 0
    return output


def refusal(service: str, account: LocalAccount, **hooks: Any) -> str:
    """Why the script is not executed; there is no keeper."""
    output, code = begin(service, account, "echo executed", **hooks).end()
    assert code == 127
    assert output.startswith("refused: PamError: ")
    assert keepers() == []
    return output


def keepers() -> list[int]:
    """Those that have become our children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text() == "mep-session\n" and field(int(folder.name), "PPid") == str(os.getpid()):
                found.append(int(folder.name))
    return found


def keeper() -> int:
    (found,) = keepers()
    return found


def field(pid: int, name: str) -> str:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))


def ended(pid: int) -> int:
    """Waits for the end of a child; its exit code."""
    status: list[int] = []

    def has_ended() -> bool:
        found, *status[:] = os.waitpid(pid, os.WNOHANG)
        return bool(found)

    until(has_ended, f"the end of {pid}")
    return os.waitstatus_to_exitcode(status[0])


def links(pid: int) -> dict[int, str]:
    """The open descriptors of a process."""
    return {int(path.name): os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


# accounts


def test_who_is_allowed_gets_in(service: Callable[[str], str], account: LocalAccount) -> None:
    assert run(service(PERMIT), account, "id -u") == f"{account.uid}\n"


def test_who_is_denied_does_not(service: Callable[[str], str], account: LocalAccount) -> None:
    name = service(PERMIT.replace("account required pam_permit", "account required pam_deny"))
    text = refusal(name, account)
    assert f"PAM service {name}, account {account.name}: account: " in text


def test_an_expired_account_is_refused_in_the_words_of_the_module(
    service: Callable[[str], str], account: LocalAccount
) -> None:
    name = service(PERMIT.replace("account required pam_permit", "account required pam_unix"))
    assert run(name, account, "echo in") == "in\n"
    account.change("chage", "-E", "0")
    try:
        text = refusal(name, account)
    finally:
        account.change("chage", "-E", "-1")
    assert "User account has expired" in text
    assert "modules said: Your account has expired" in text


def test_an_expired_password_is_refused_like_an_expired_account(
    service: Callable[[str], str], account: LocalAccount
) -> None:
    name = service(PERMIT.replace("account required pam_permit", "account required pam_unix"))
    account.change("chage", "-d", "0")
    try:
        text = refusal(name, account)
    finally:
        account.change("chage", "-d", "-1")
    assert "the password has expired" in text


def test_a_closed_host_says_why(service: Callable[[str], str], account: LocalAccount, tmp_path: Path) -> None:
    closed = tmp_path / "nologin"
    name = service(f"account required pam_nologin.so file={closed}\n{PERMIT}")
    assert run(name, account, "echo in") == "in\n"
    closed.write_text("Maintenance until Monday\n")
    assert "modules said: Maintenance until Monday" in refusal(name, account)


def test_what_modules_say_is_bounded_and_printable(
    service: Callable[[str], str], account: LocalAccount, tmp_path: Path
) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"\x1b[31mred\x07\r\n\xff\xe2\x80\xae" + b"long " * 150)
    echo = f"account optional pam_echo.so file={noise}\n" * 30
    text = refusal(service(echo + "account required pam_deny.so\n"), account)
    assert "red" in text
    assert text.isprintable()
    assert len(text) < 1000


def test_a_question_is_not_answered(service: Callable[[str], str], account: LocalAccount) -> None:
    """No module asks when accounts are checked, so the one that asks for passwords is used as for a login."""
    name = service("auth required pam_unix.so\n" + PERMIT)

    def log_in(held: Session) -> None:
        held._do("login", session._pam.PAM_AUTHENTICATE, 0)

    text = refusal(name, account, between=log_in)
    assert text.endswith("modules said: (asked 'Password:', which nobody can answer here)")


def test_modules_learn_for_whom_and_by_whom(logged: str, account: LocalAccount, log: Path) -> None:
    run(logged, account, "true")
    assert log.read_text().splitlines()[0] == f"open_session {account.name} mep root"


# what a session gives


def test_limits_arrive_in_the_program(service: Callable[[str], str], account: LocalAccount, tmp_path: Path) -> None:
    limits = tmp_path / "limits.conf"
    limits.write_text(f"{account.name} hard nofile 123\n{account.name} soft core 0\n")
    name = service(f"{PERMIT}session required pam_limits.so conf={limits}\n")
    assert run(name, account, "ulimit -Hn; ulimit -Sc") == "123\n0\n"


@pytest.mark.parametrize("kind", ["session", "auth"])
def test_variables_arrive_in_the_program(
    service: Callable[[str], str], account: LocalAccount, tmp_path: Path, kind: str
) -> None:
    """In `auth` the module sets them when credentials are established, as Enterprise Linux has it."""
    variables = tmp_path / "env.conf"
    variables.write_text("SITE DEFAULT=here=there\nNOT-A-NAME DEFAULT=x\n")
    name = service(f"{kind} required pam_env.so conffile={variables} envfile=/dev/null\n{PERMIT}")
    lines = run(name, account, "cat /proc/$$/environ | tr '\\0' '\\n'").splitlines()
    assert "SITE=here=there" in lines
    assert not [line for line in lines if line.startswith("NOT-A-NAME")]


def test_a_variable_that_is_not_text_arrives_as_it_is(service: Callable[[str], str], account: LocalAccount) -> None:
    def put(held: Session) -> None:
        assert session._pam.PAM_PUTENV(held._handle, b"BYTES=\xff\xfe") == 0

    assert run(service(PERMIT), account, "printf %s $BYTES | od -An -tx1", between=put).split() == ["ff", "fe"]


def test_credentials_add_groups_to_those_of_the_account(
    service: Callable[[str], str], account: LocalAccount, tmp_path: Path
) -> None:
    """pam_group reads a fixed file, so the child gets a view of /etc of its own."""
    name = service(f"auth required pam_group.so\n{PERMIT}")
    rules = tmp_path / "group.conf"
    rules.write_text(f"{name};*;{account.name};Al0000-2400;games\n")

    def see_the_rules(held: Session) -> None:
        assert _libc.unshare(_CLONE_NEWNS) == 0
        assert _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
        assert _libc.mount(bytes(rules), b"/etc/security/group.conf", None, _MS_BIND, None) == 0

    groups = run(name, account, "id -Gn", first=see_the_rules).split()
    assert {account.name, "games"} <= set(groups)


# what modules log

LISTENER = """
import os, socket, sys
from mep.privileged import session

listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listening.bind("/dev/log")
session.load()
held = session.Session(sys.argv[1], sys.argv[2])
held.check_account()
held.open()
print(listening.recv(4096).decode())
assert held.close() == []
"""


def test_modules_log_under_our_name(service: Callable[[str], str], account: LocalAccount) -> None:
    """In a /dev of its own, whose log nobody else writes to."""
    name = service("account required pam_permit.so\nsession required pam_unix.so\n")
    own_dev = "mount -t tmpfs none /dev; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9; mknod /dev/random c 1 8"
    program = ["unshare", "--mount", "sh", "-ec", f'{own_dev}; exec "$@"', "sh", sys.executable, "-c", LISTENER]
    done = subprocess.run([*program, name, account.name], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = rf"<\d+>.* mep\[\d+\]: pam_unix\({name}:session\): session opened for user {account.name}.*"
    assert re.fullmatch(said, done.stdout.strip("\n\0"))


# nothing is left open


def test_a_session_is_open_while_the_program_runs(logged: str, account: LocalAccount, log: Path) -> None:
    run(logged, account, f"echo program >>{log}")
    assert kinds(log) == ["open_session", "program", "close_session"]


def test_every_step_is_undone_in_reverse(service: Callable[[str], str], account: LocalAccount, log: Path) -> None:
    """No module of Debian shows that it deletes credentials, so the calls are written down on their way to PAM."""
    establish, delete = session._pam.PAM_ESTABLISH_CRED, session._pam.PAM_DELETE_CRED
    names = ("PAM_ACCT_MGMT", "PAM_SETCRED", "PAM_OPEN_SESSION", "PAM_CLOSE_SESSION", "PAM_END")

    def listen(held: Session) -> None:
        real, heard = session._pam, types.SimpleNamespace(**vars(session._pam))
        for name in names:
            setattr(heard, name, functools.partial(write_down, name, getattr(real, name)))
        session._pam = heard  # in this child only

    def write_down(name: str, function: Callable[..., int], handle: object, argument: int) -> int:
        with log.open("a") as f:
            f.write(f"{name} {argument}\n")
        return function(handle, argument)

    run(service(PERMIT), account, f"echo program >>{log}", first=listen)
    assert log.read_text().splitlines() == [
        "PAM_ACCT_MGMT 0",
        f"PAM_SETCRED {establish}",
        "PAM_OPEN_SESSION 0",
        "program",
        "PAM_CLOSE_SESSION 0",
        f"PAM_SETCRED {delete}",
        "PAM_END 0",
    ]


def test_a_session_that_half_of_the_modules_opened_is_closed(
    service: Callable[[str], str], account: LocalAccount, log: Path, tmp_path: Path
) -> None:
    name = service(PERMIT + logging_line(log, tmp_path) + "session required pam_deny.so\n")
    assert ": session: " in refusal(name, account)
    assert kinds(log) == ["open_session", "close_session"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_session_that_nobody_can_keep_is_closed(logged: str, account: LocalAccount, log: Path, failing: int) -> None:
    """The first fork makes the process between, the second, in that, the keeper."""
    fork, forks = os.fork, [0]

    def fork_or_fail() -> int:
        forks[0] += 1
        if forks[0] == failing:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    def run_out_of_processes(held: Session) -> None:
        os.fork = fork_or_fail  # in this child only

    text = refusal(logged, account, between=run_out_of_processes)
    assert f"keeper: {os.strerror(errno.EAGAIN)}" in text
    assert kinds(log) == ["open_session", "close_session"]


def test_a_launch_that_fails_before_it_is_kept_closes_the_session_itself(
    logged: str, account: LocalAccount, log: Path
) -> None:
    def give_up(held: Session) -> None:
        assert held.close() == []
        assert held.close() == []
        raise PamError("given up")

    refusal(logged, account, between=give_up)
    assert kinds(log) == ["open_session", "close_session"]


def test_a_module_that_objects_to_closing_is_heard(
    service: Callable[[str], str], account: LocalAccount, tmp_path: Path
) -> None:
    script = tmp_path / "objecting"
    script.write_text('#!/bin/sh\ntest "$PAM_TYPE" = open_session\n')
    script.chmod(0o755)
    name = service(f"{PERMIT}session required pam_exec.so {script}\n")

    def close(held: Session) -> None:
        (objection,) = held.close()
        raise PamError(f"heard: {objection}")

    assert "heard: " in refusal(name, account, between=close)
    run(name, account, "true")  # its keeper ends all the same


# the keeper


def test_the_session_is_closed_when_the_program_is_killed(logged: str, account: LocalAccount, log: Path) -> None:
    program = begin(logged, account, "echo; exec sleep 1000")
    program.wait_until_it_runs()
    assert kinds(log) == ["open_session"]
    os.kill(program.pid, signal.SIGKILL)
    assert program.end()[1] == -signal.SIGKILL
    assert ended(keeper()) == 0
    assert kinds(log) == ["open_session", "close_session"]


def test_the_session_is_closed_when_the_program_was_never_executed(
    logged: str, account: LocalAccount, log: Path
) -> None:
    program = begin(logged, account, "echo executed", instead=lambda held: os._exit(127))
    assert program.end() == ("", 127)
    assert ended(keeper()) == 0
    assert kinds(log) == ["open_session", "close_session"]


def test_a_launch_that_fails_after_it_was_kept_closes_nothing_twice(
    logged: str, account: LocalAccount, log: Path
) -> None:
    program = begin(logged, account, "echo executed", instead=lambda held: (held.close(), os._exit(127)))
    program.end()
    assert ended(keeper()) == 0
    assert kinds(log) == ["open_session", "close_session"]


def test_the_keeper_is_no_child_and_no_companion_of_the_program(logged: str, account: LocalAccount) -> None:
    program = begin(logged, account, "echo; read line; true")
    program.wait_until_it_runs()
    pid = keeper()
    assert field(pid, "PPid") != str(program.pid)
    assert os.getsid(pid) not in (program.pid, os.getsid(0))
    assert os.getpgid(pid) not in (program.pid, os.getpgid(0))
    assert Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text() == ""
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    program.end()
    assert ended(pid) == 0


def test_the_keeper_has_no_descriptor_of_ours_but_those_that_modules_opened(
    service: Callable[[str], str], account: LocalAccount
) -> None:
    leaks = [os.open("/etc/shadow", os.O_RDONLY), *os.pipe()]
    os.set_inheritable(leaks[0], True)
    leaks.append(fcntl.fcntl(leaks[0], fcntl.F_DUPFD, 300))
    try:
        name = service(PERMIT)
        program = begin(
            name, account, "echo; read line; true", between=lambda held: os.open("/etc/hostname", os.O_RDONLY)
        )
        program.wait_until_it_runs()
        pid = keeper()
        found = links(pid)
        program.end()
    finally:
        for descriptor in leaks:
            os.close(descriptor)
    assert [found.pop(number) for number in (0, 1, 2)] == ["/dev/null"] * 3
    assert sorted(found.values()) == ["/etc/hostname", "anon_inode:[pidfd]"]
    assert ended(pid) == 0


def test_the_keeper_outlives_what_ends_the_program_s_group(logged: str, account: LocalAccount, log: Path) -> None:
    program = begin(logged, account, "trap '' HUP INT QUIT TERM USR1 USR2; echo; read line; true")
    program.wait_until_it_runs()
    pid = keeper()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        os.killpg(program.pid, number)
        os.kill(pid, number)
    assert kinds(log) == ["open_session"]
    assert program.end() == ("", 0)
    assert ended(pid) == 0
    assert kinds(log) == ["open_session", "close_session"]


def test_the_user_reaches_nothing_of_the_keeper(logged: str, account: LocalAccount) -> None:
    tries = ("cat /proc/$k/environ", "cat /proc/$k/maps", "head -c 1 /proc/$k/mem", "ls /proc/$k/fd", "kill -0 $k")
    script = "echo; read k; " + "; ".join(f"{attempt} >/dev/null 2>&1 && echo '{attempt}'" for attempt in tries)
    program = begin(logged, account, f"{script}; cat /proc/$k/comm")
    program.wait_until_it_runs()
    pid = keeper()
    assert field(pid, "Uid").split() == ["0"] * 4
    os.write(program.input, f"{pid}\n".encode())
    assert program.end() == ("mep-session\n", 0)
    assert ended(pid) == 0


def test_nobody_else_may_read_the_keeper_s_memory(logged: str, account: LocalAccount, log: Path) -> None:
    def tell(held: Session) -> list[str]:
        log.write_text(f"dumpable {_libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)}\n")
        return []

    def tell_when_closing(held: Session) -> None:
        assert _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1
        held.close = lambda: tell(held)  # type: ignore[method-assign]

    run(logged, account, "true", between=tell_when_closing)
    assert log.read_text() == "dumpable 0\n"


# loading


def test_a_host_without_the_binding_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_pam", None)
    monkeypatch.setitem(sys.modules, "pamela", None)
    with pytest.raises(PamError, match=r"install .* pamela"):
        session.load()
