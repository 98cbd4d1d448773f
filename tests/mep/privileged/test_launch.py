"""The privileged part with real accounts and real setuid."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import pwd
import resource
import secrets
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from mep.privileged import become, kernel, launch
from mep.privileged.spec import LaunchRefused, check
from mep.processes.sealed_file import sealed
from mep.request.group_rule import GroupRule
from mep.request.launch_spec import LaunchSpec

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture(scope="module")
def account() -> Iterator[LocalAccount]:
    with LocalAccount("meptest_launch", arguments=("--groups", "games")) as made:
        yield made


@pytest.fixture
def null() -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def spec(account: LocalAccount, null: int) -> LaunchSpec:
    return LaunchSpec(
        argv=("/bin/sh", "-c", "true"),
        environment={"ONLY": "this"},
        username=account.name,
        uid=account.uid,
        gid=account.gid,
        groups=tuple(sorted(os.getgrouplist(account.name, account.gid))),
        directory=str(account.home),
        log=(f"{account.home}/.globus_compute/uep", "endpoint.log"),
        descriptors={0: null},
        home=str(account.home),
    )


def run(spec: LaunchSpec) -> tuple[launch.LaunchFailure | None, int]:
    """Launches, waits for the end; the failure if any, and the exit code."""
    started = launch.start(spec)
    with os.fdopen(started.report, "rb") as report:
        failure = launch.read_report(report.read())
    _, status = os.waitpid(started.pid, 0)
    os.close(started.pidfd)
    return failure, os.waitstatus_to_exitcode(status)


def shell(spec: LaunchSpec, script: str) -> str:
    """What a shell script prints when it is launched by `spec`."""
    log = Path(spec.log[0], spec.log[1]) if spec.log else None
    assert log is not None
    log.unlink(missing_ok=True)
    assert run(dataclasses.replace(spec, argv=("/bin/sh", "-c", script))) == (None, 0)
    return log.read_text()


def test_the_program_is_the_account_and_nothing_else(spec: LaunchSpec, account: LocalAccount) -> None:
    lines = shell(spec, "id -ru; id -u; id -rg; id -g; id -G; pwd; umask; ulimit -c").splitlines()
    groups = " ".join(str(g) for g in sorted(spec.groups))
    assert lines[:4] == [str(account.uid), str(account.uid), str(account.gid), str(account.gid)]
    assert sorted(map(int, lines[4].split())) == sorted(map(int, groups.split()))
    assert lines[5:] == [str(account.home), "0077", "0"]


@pytest.mark.parametrize(("umask", "said"), [(None, "0077"), (0o027, "0027"), (0o002, "0002"), (0, "0000")])
def test_the_umask_is_the_programs_and_not_that_of_its_log(
    spec: LaunchSpec, account: LocalAccount, umask: int | None, said: str
) -> None:
    assert shell(dataclasses.replace(spec, umask=umask), "umask").strip() == said
    assert spec.log is not None
    log = Path(spec.log[0], spec.log[1])
    assert [path.stat().st_mode & 0o777 for path in (log, log.parent)] == [0o600, 0o700]


@pytest.mark.parametrize(
    ("rule", "umask", "said"),
    [
        ("", None, "0077"),
        ("", 0o027, "0027"),
        ("pam_umask.so umask=0007", None, "0007"),
        ("pam_umask.so umask=0007", 0o027, "0007"),
    ],
)
def test_the_umask_of_a_pam_session_counts(spec: LaunchSpec, rule: str, umask: int | None, said: str) -> None:
    service = Path("/etc/pam.d", f"mep-test-{secrets.token_hex(6)}")
    rules = [f"{kind} required pam_permit.so" for kind in ("auth", "account", "session")]
    service.write_text("\n".join([*rules, *([f"session required {rule}"] if rule else []), ""]))
    try:
        assert shell(dataclasses.replace(spec, pam=service.name, umask=umask), "umask").strip() == said
    finally:
        service.unlink()


def test_a_limit_of_a_pam_session_counts_for_the_program_and_not_for_what_the_manager_has_open(
    spec: LaunchSpec, tmp_path: Path
) -> None:
    """For each user endpoint that has several descriptors."""
    limits = tmp_path / "limits.conf"
    limits.write_text(f"{spec.username} hard nofile 100\n")
    service = Path("/etc/pam.d", f"mep-test-{secrets.token_hex(6)}")
    rules = [f"{kind} required pam_permit.so" for kind in ("auth", "account", "session")]
    service.write_text("\n".join([*rules, f"session required pam_limits.so conf={limits}", ""]))
    ours = [os.dup(0) for _ in range(200)]
    handing = dataclasses.replace(spec, descriptors={}, handed_over=(b"x",), pam=service.name)
    try:
        assert shell(handing, "cat; ulimit -Hn") == "x100\n"
    finally:
        service.unlink()
        for descriptor in ours:
            os.close(descriptor)


def test_no_capability_is_left_and_none_can_be_gained(spec: LaunchSpec) -> None:
    lines = shell(spec, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status").split()
    assert dict(zip(lines[::2], lines[1::2], strict=True)) == {
        "CapInh:": "0" * 16,
        "CapPrm:": "0" * 16,
        "CapEff:": "0" * 16,
        "CapBnd:": "0" * 16,
        "CapAmb:": "0" * 16,
        "NoNewPrivs:": "1",
    }


def test_the_environment_is_what_the_spec_says(spec: LaunchSpec) -> None:
    lines = shell(spec, "cat /proc/$$/environ | tr '\\0' '\\n'").split()
    assert lines == ["ONLY=this"]


def test_only_the_named_descriptors_reach_the_program(spec: LaunchSpec) -> None:
    leaks = [os.open("/etc/shadow", os.O_RDONLY) for _ in range(3)]
    os.set_inheritable(leaks[0], True)
    os.dup2(leaks[0], 70, inheritable=True)
    read, write = os.pipe()
    try:
        named = dataclasses.replace(spec, descriptors={**spec.descriptors, 3: read, 5: write})
        listing = shell(named, "ls -l /proc/$$/fd")
    finally:
        for descriptor in (*leaks, 70, read, write):
            os.close(descriptor)
    assert "shadow" not in listing
    numbers = {int(line.split(" -> ")[0].split()[-1]) for line in listing.splitlines() if " -> " in line}
    assert numbers == {0, 1, 2, 3, 5}


def test_descriptors_may_change_places(spec: LaunchSpec) -> None:
    read, write = os.pipe()
    os.write(write, b"through\n")
    os.close(write)
    assert shell(dataclasses.replace(spec, descriptors={0: read}), "cat") == "through\n"
    os.close(read)


@pytest.mark.parametrize("lowest_free", range(54, 72))
def test_descriptors_do_not_get_mixed_up_in_a_busy_manager(spec: LaunchSpec, lowest_free: int) -> None:
    """The numbers that the child copies to may be in use by the very descriptors that it copies."""
    filler = []
    while (descriptor := os.open("/dev/null", os.O_RDONLY)) < lowest_free:
        filler.append(descriptor)
    os.close(descriptor)
    pipes = [os.pipe() for _ in range(2)]
    try:
        os.write(pipes[0][1], b"zero\n")
        os.close(pipes[0][1])
        named = dataclasses.replace(spec, descriptors={0: pipes[0][0], 5: pipes[1][1]})
        assert shell(named, "cat; echo five >&5") == "zero\n"
        assert os.read(pipes[1][0], 100) == b"five\n"
    finally:
        for descriptor in (*filler, pipes[0][0], *pipes[1]):
            os.close(descriptor)


def test_keys_of_the_manager_are_not_inherited(spec: LaunchSpec) -> None:
    """A key in our session keyring would be possessed, and so readable, whatever its owner."""
    libc = ctypes.CDLL(None, use_errno=True)
    add_key, session_keyring = {"x86_64": 248, "aarch64": 217}[os.uname().machine], -3

    def script() -> None:
        if libc.syscall(add_key, b"user", b"mep-test-key", b"secret", 6, session_keyring) < 0:
            os._exit(77)
        assert "mep-test-key" in Path("/proc/keys").read_text()
        said = shell(spec, "cat /proc/keys")
        os._exit(3 if "mep-test-key" in said else 0)

    code = in_a_child(script)
    if code == 77:
        pytest.skip("this kernel lets nobody have keys")
    assert code == 0


CHOOSE_LOGIN_UID = "echo 0 2>/dev/null >/proc/self/loginuid; cat /proc/self/loginuid"
"""A task that would have root as who did it, in the kernel's audit; what becomes of that."""


@pytest.mark.parametrize("rule", [None, "pam_permit.so", "pam_loginuid.so"])
def test_a_task_cannot_choose_its_login_uid(spec: LaunchSpec, account: LocalAccount, rule: str | None) -> None:
    needs_audit()
    service = Path("/etc/pam.d", f"mep-test-{secrets.token_hex(6)}")
    service.write_text(f"account required pam_permit.so\nauth required pam_permit.so\nsession required {rule}\n")
    try:
        strict = dataclasses.replace(spec, login_uid_required=True, pam=service.name if rule else None)
        assert shell(strict, CHOOSE_LOGIN_UID) == str(account.uid)
    finally:
        service.unlink()


def test_two_programs_of_an_account_are_two_audit_sessions(spec: LaunchSpec) -> None:
    needs_audit()
    assert len({shell(spec, "cat /proc/self/sessionid") for _ in range(2)}) == 2


def test_a_login_uid_that_cannot_be_changed(spec: LaunchSpec) -> None:
    """The manager has that of whoever started it, and no right to change it."""
    needs_audit()

    def script() -> None:
        kernel.set_login_uid(4242)
        without_audit_control()
        assert "does not let it be changed" in (become.login_uid_problem() or "")
        assert shell(spec, CHOOSE_LOGIN_UID) == "4242"
        failure, _ = run(dataclasses.replace(spec, login_uid_required=True))
        assert failure is not None
        assert (failure.step, failure.errno) == ("loginuid", errno.EPERM)

    assert in_a_child(script) == 0


def test_a_kernel_without_audit(spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_LOGIN_UID", "/proc/self/no_loginuid")
    assert become.login_uid_problem() == "this kernel has no audit"
    assert run(spec) == (None, 0)
    failure, _ = run(dataclasses.replace(spec, login_uid_required=True))
    assert failure is not None
    assert (failure.step, failure.errno) == ("loginuid", errno.ENOENT)


def test_looking_for_what_keeps_it_from_being_set_sets_none() -> None:
    needs_audit()

    def script() -> None:
        before = kernel.login_uid()
        assert become.login_uid_problem() is None
        assert kernel.login_uid() == before

    assert in_a_child(script) == 0


def needs_audit() -> None:
    if kernel.login_uid() is None:
        pytest.skip("this kernel has no audit")


def without_audit_control() -> None:
    """Gives up CAP_AUDIT_CONTROL, and keeps all else."""
    libc, mask = ctypes.CDLL(None, use_errno=True), ~(1 << 30) & 0xFFFFFFFF
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= mask
    sets[1] &= mask
    assert libc.capset(header, sets) == 0


def test_signals_are_as_new(spec: LaunchSpec) -> None:
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        lines = shell(spec, "grep -E '^Sig(Blk|Ign)' /proc/self/status").split()
    finally:
        signal.signal(signal.SIGTERM, old)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    blocked, ignored = int(lines[1], 16), int(lines[3], 16)
    of_the_c_library = 1 << 31 | 1 << 32  # signals 32 and 33, which it lets nobody touch
    assert (blocked, ignored & ~of_the_c_library) == (0, 0)


def test_the_program_leads_a_session_of_its_own(spec: LaunchSpec) -> None:
    pid, session, group = shell(spec, "echo $$; cut -d' ' -f6 /proc/$$/stat; cut -d' ' -f5 /proc/$$/stat").split()
    assert pid == session == group


def test_the_log_belongs_to_the_account_and_is_closed_to_others(spec: LaunchSpec, account: LocalAccount) -> None:
    shell(spec, "echo said")
    log = account.home / ".globus_compute" / "uep" / "endpoint.log"
    assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (account.uid, 0o600)
    assert (log.parent.stat().st_uid, log.parent.stat().st_mode & 0o777) == (account.uid, 0o700)


@pytest.mark.parametrize(
    ("changes", "step", "errno_name"),
    [
        ({"argv": ("/no/such/program",)}, "exec", "No such file"),
        ({"argv": ("/etc/shadow",)}, "exec", "Permission denied"),
        ({"directory": "/no/such/home"}, "home", "No such file"),
        ({"directory": "/root"}, "home", "Permission denied"),
        ({"log": ("/etc/mep-test", "x")}, "log", "Permission denied"),
    ],
)
def test_a_failed_step_is_named(spec: LaunchSpec, changes: dict[str, object], step: str, errno_name: str) -> None:
    failure, code = run(dataclasses.replace(spec, **changes))  # type: ignore[arg-type]
    assert failure is not None
    assert (failure.step, code) == (step, 127)
    assert errno_name in failure.text


def test_a_link_in_place_of_the_log_is_not_followed(spec: LaunchSpec, account: LocalAccount) -> None:
    folder = account.home / "linked"
    folder.mkdir()
    os.chown(folder, account.uid, account.gid)
    (folder / "endpoint.log").symlink_to("/etc/passwd")
    failure, _ = run(dataclasses.replace(spec, log=(str(folder), "endpoint.log")))
    assert failure is not None
    assert failure.step == "log"


def test_a_pipe_in_place_of_the_log_does_not_hang(spec: LaunchSpec, account: LocalAccount) -> None:
    os.mkfifo(account.home / "fifo")
    os.chown(account.home / "fifo", account.uid, account.gid)
    failure, _ = run(dataclasses.replace(spec, log=(str(account.home), "fifo")))
    assert failure is not None
    assert failure.step == "log"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"uid": 4242}, "does not have uid 4242"),
        ({"gid": 4242}, "gid 4242"),
        ({"username": "meptest_nosuch"}, "no such account"),
        ({"username": "MEPTEST"}, "no such account"),
        ({"groups": (4242,)}, "does not belong"),
        ({"groups": ()}, "does not belong"),
        ({"home": "/tmp/prepared"}, "another home"),
        ({"shell": "/bin/prepared"}, "another shell"),
        ({"groups": (4242,), "home": None}, "does not belong"),
    ],
)
def test_what_the_name_service_does_not_confirm(spec: LaunchSpec, changes: dict[str, object], names: str) -> None:
    failure, code = run(dataclasses.replace(spec, **changes))  # type: ignore[arg-type]
    assert failure is not None
    assert (failure.step, code) == ("account", 127)
    assert names in failure.text


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (GroupRule(), None),
        (GroupRule(deny=("users",)), None),
        (GroupRule(allow=("users", "games")), None),
        (GroupRule(allow=("meptest_nosuch", "meptest_launch")), None),
        (GroupRule(deny=("games",)), "in group 'games', which is denied"),
        (GroupRule(deny=("meptest_launch",), allow=("games",)), "in group 'meptest_launch', which is denied"),
        (GroupRule(deny=("meptest_nosuch",)), "knows no group 'meptest_nosuch'"),
        (GroupRule(allow=("users", "meptest_nosuch")), "in none of the groups that are allowed"),
        (GroupRule(allow=()), "in none of the groups that are allowed"),
    ],
)
def test_the_child_asks_for_the_groups_of_the_policy_itself(
    spec: LaunchSpec, rule: GroupRule, names: str | None
) -> None:
    failure, code = run(dataclasses.replace(spec, group_rule=rule))
    if names is None:
        assert (failure, code) == (None, 0)
        return
    assert failure is not None
    assert (failure.step, code) == ("admission", 127)
    assert names in failure.text


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"uid": 0}, "root"),
        ({"username": "root"}, "no account of that name"),
        ({"username": "alice\0"}, "no account of that name"),
        ({"username": "meptest\n"}, "no account of that name"),
        ({"username": "1000"}, "no account of that name"),
        ({"username": "../alice"}, "no account of that name"),
        ({"gid": 0}, "root"),
        ({"groups": (0,)}, "root's group"),
        ({"uid": -1}, "range"),
        ({"uid": 2**32 - 1}, "range"),
        ({"argv": ("sh",)}, "absolute"),
        ({"argv": ()}, "absolute"),
        ({"argv": ("/bin/sh", "a\0b")}, "NUL"),
        ({"environment": {"A=B": "c"}}, "'='"),
        ({"directory": "home"}, "absolute"),
        ({"descriptors": {}}, "must name 0"),
        ({"descriptors": {0: 0, 1: 1}}, "must name 0"),
        ({"descriptors": {0: 0, 99: 1}}, "above"),
        ({"log": None}, "must name 0"),
        ({"pam": "../login"}, "PAM service"),
        ({"pam": ""}, "PAM service"),
        ({"rlimits": {0: -1}}, "whole numbers"),
    ],
)
def test_what_is_never_launched(spec: LaunchSpec, changes: dict[str, object], names: str) -> None:
    bad = dataclasses.replace(spec, **changes)  # type: ignore[arg-type]
    with pytest.raises(LaunchRefused, match=names):
        check(bad)
    with pytest.raises(LaunchRefused):
        launch.start(bad)


def as_account(account: LocalAccount, work: Callable[[], object]) -> str:
    """What `work` returns, or raises, in a process that is an ordinary user's."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.initgroups(account.name, account.gid)
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            os.write(writing, repr(work()).encode())
        except BaseException as e:
            os.write(writing, f"{type(e).__name__}: {e}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        answer = said.read()
    os.waitpid(child, 0)
    return answer


def test_without_root_only_our_own_account_is_started(spec: LaunchSpec, account: LocalAccount) -> None:
    nobody = dataclasses.replace(spec, username="nobody", uid=65534, gid=65534, groups=(65534,))
    assert "is another than ours" in as_account(account, lambda: run(nobody))
    assert "is root" in as_account(account, lambda: run(dataclasses.replace(spec, uid=0)))
    assert "only root can open sessions" in as_account(account, lambda: run(dataclasses.replace(spec, pam="login")))
    assert as_account(account, lambda: run(spec)) == "(None, 0)"


def test_without_root_a_program_is_the_user_with_all_that_it_has(spec: LaunchSpec, account: LocalAccount) -> None:
    groups = " ".join(map(str, sorted(spec.groups)))
    said = as_account(account, lambda: shell(spec, "id -ru; echo $(id -G | tr ' ' '\\n' | sort -n); ulimit -c"))
    assert said == repr(f"{account.uid}\n{groups}\n0\n")


def test_without_root_a_program_outlives_us_and_a_helper_gains_nothing(spec: LaunchSpec, account: LocalAccount) -> None:
    flags = "grep -c 'NoNewPrivs:.1' /proc/self/status || true"
    assert as_account(account, lambda: shell(spec, flags)) == repr("0\n")
    helper = dataclasses.replace(spec, home=None)
    assert as_account(account, lambda: shell(helper, flags)) == repr("1\n")
    sleeps = dataclasses.replace(spec, argv=("/bin/sleep", "1000"))

    def begin() -> int:
        started = launch.start(sleeps)
        os.read(started.report, 1)
        return started.pid

    pid = int(as_account(account, begin))
    try:
        assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    finally:
        os.kill(pid, signal.SIGKILL)


def held(spec: LaunchSpec) -> launch.Started:
    """A child that waits at the gate."""
    started = launch.start(spec, held=True)
    assert os.read(started.report, 1) == launch.HELD
    return started


def end_of(started: launch.Started) -> tuple[launch.LaunchFailure | None, int]:
    """The failure if any, and the exit code; closes what is open."""
    with os.fdopen(started.report, "rb") as report:
        failure = launch.read_report(report.read())
    os.close(started.pidfd)
    return failure, os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])


def test_a_child_at_the_gate_is_root_and_has_touched_nothing(spec: LaunchSpec) -> None:
    fresh = f"{spec.directory}/fresh"
    started = held(dataclasses.replace(spec, log=(fresh, "endpoint.log")))
    assert started.gate is not None
    try:
        status = Path(f"/proc/{started.pid}/status").read_text()
        assert "Uid:\t0\t0\t0\t0" in status
        assert os.stat(f"/proc/{started.pid}/mem").st_uid == 0
        assert not Path(fresh).exists()
    finally:
        launch.release(started)
        os.close(started.gate)
    assert end_of(started) == (None, 0)
    assert Path(fresh, "endpoint.log").exists()


def test_a_child_whose_gate_closes_ends(spec: LaunchSpec) -> None:
    fresh = f"{spec.directory}/never"
    started = held(dataclasses.replace(spec, log=(fresh, "endpoint.log")))
    assert started.gate is not None
    os.close(started.gate)
    assert end_of(started)[1] == 127
    assert not Path(fresh).exists()


def test_a_child_at_the_gate_ends_with_its_parent(spec: LaunchSpec) -> None:
    """Also when another child, forked meanwhile, has inherited the other end of the gate."""
    reading, writing = os.pipe()

    def parent() -> None:
        pids = [held(spec).pid for _ in range(3)]
        os.write(writing, " ".join(map(str, pids)).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(parent) == -signal.SIGKILL
    pids = os.read(reading, 100).split()
    os.close(reading)
    os.close(writing)
    for pid in map(int, pids):
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            assert select.select([pidfd], [], [], 10)[0], "it still waits"
            os.close(pidfd)


def test_a_child_killed_at_the_gate_lets_nobody_hang(spec: LaunchSpec) -> None:
    started = held(spec)
    assert started.gate is not None
    os.kill(started.pid, signal.SIGKILL)
    assert end_of(started)[1] == -signal.SIGKILL
    launch.release(started)
    os.close(started.gate)


def test_what_is_handed_over_is_put_together_by_the_account(spec: LaunchSpec) -> None:
    """From bytes and from files that others hold open, too, wherever these have read to."""
    secret = sealed("secret", b"hunter2" * 20_000)
    os.lseek(secret, 5, os.SEEK_SET)
    handing = dataclasses.replace(spec, descriptors={}, handed_over=(b"<", secret, b"|", secret, b">"))
    try:
        said = shell(handing, "cat; echo; stat -Lc %U /proc/self/fd/0; ls /proc/$$/fd")
    finally:
        os.close(secret)
    text, owner, *descriptors = said.split()
    assert text == f"<{'hunter2' * 20_000}|{'hunter2' * 20_000}>"
    assert owner == spec.username
    assert set(descriptors) - {"10"} == {"0", "1", "2"}


def test_a_hand_over_that_cannot_be_made_is_a_step_that_failed(spec: LaunchSpec) -> None:
    def script() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as PAM may have set it
        failure, code = run(dataclasses.replace(spec, descriptors={}, handed_over=(b"x" * 1001,)))
        assert failure is not None
        os._exit(0 if (failure.step, failure.errno, code) == ("handover", errno.EFBIG, 127) else 3)

    assert in_a_child(script) == 0


@pytest.mark.parametrize("handed_over", [(), (b"x",)])
def test_descriptor_0_is_handed_over_or_open(spec: LaunchSpec, handed_over: tuple[bytes, ...]) -> None:
    descriptors = spec.descriptors if handed_over else {}
    with pytest.raises(LaunchRefused, match="must name 0"):
        check(dataclasses.replace(spec, descriptors=descriptors, handed_over=handed_over))


def test_resource_limits_are_the_programs(spec: LaunchSpec) -> None:
    limits = {resource.RLIMIT_NPROC: 77, resource.RLIMIT_NOFILE: 55}
    said = shell(dataclasses.replace(spec, rlimits=limits), "grep -E '^Max (processes|open files)' /proc/self/limits")
    assert [line.split()[-3:-1] for line in said.splitlines()] == [["77", "77"], ["55", "55"]]


def test_a_hard_limit_in_force_is_never_raised(spec: LaunchSpec) -> None:
    def script() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        said = shell(dataclasses.replace(spec, rlimits={resource.RLIMIT_NOFILE: 5000}), "ulimit -Hn")
        os._exit(0 if said.strip() == "100" else 3)

    assert in_a_child(script) == 0


def in_a_child(action: object) -> int:
    """Runs `action` in a forked child; its exit code: 0 returned, 1 raised NotProven, 2 anything else."""
    pid = os.fork()
    if pid == 0:
        code = 2
        with contextlib.suppress(BaseException):
            try:
                action()  # type: ignore[operator]
                code = 0
            except become.NotProven:
                code = 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_proof_fails_for_every_kind_of_half_a_drop(account: LocalAccount) -> None:
    """One step of the drop left out at a time: the proof must find each."""
    uid, gid, groups, last = account.uid, account.gid, (account.gid,), kernel.last_capability()

    def drop(leave_out: str) -> None:
        steps = {
            "bounding set": lambda: kernel.clear_bounding_set(last),
            "gid": lambda: os.setresgid(gid, gid, gid),
            "groups": lambda: os.setgroups(groups),
            "login uid": lambda: become.take_login_uid(uid, required=False),
            "uid": lambda: os.setresuid(uid, uid, uid),
            "saved uid": lambda: None,
            "no new privileges": kernel.set_no_new_privileges,
        }
        if leave_out == "saved uid":
            steps["uid"] = lambda: os.setresuid(uid, uid, 0)
        for name, step in steps.items():
            if name != leave_out:
                step()
        become.prove(uid, gid, groups, login_uid=None if kernel.login_uid() is None else uid)

    assert in_a_child(lambda: drop("nothing")) == 0
    parts = ["bounding set", "gid", "groups", "uid", "saved uid", "no new privileges"]
    for step in [*parts, *(["login uid"] if kernel.login_uid() is not None else [])]:
        assert in_a_child(lambda step=step: drop(step)) == 1, f"the proof did not notice: {step}"


def test_a_set_uid_program_gains_nothing(spec: LaunchSpec, account: LocalAccount) -> None:
    copy = account.home.parent / "meptest_setuid"
    copy.write_bytes(Path("/usr/bin/id").read_bytes())
    copy.chmod(0o4755)
    try:
        assert shell(spec, f"{copy} -u").strip() == str(account.uid)
    finally:
        copy.unlink()


def test_nobody_reads_the_child_before_it_has_become_the_account(account: LocalAccount) -> None:
    assert pwd.getpwnam(account.name).pw_uid == account.uid
    read, write = os.pipe()

    def check_dumpable() -> None:
        launch._forbid_dumps()
        os.write(write, str(os.stat("/proc/self/mem").st_uid).encode())

    assert in_a_child(check_dumpable) == 0
    assert os.read(read, 20) == b"0"
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("kernel_can", [True, False])
def test_descriptors_above_a_lowered_limit_are_closed(
    spec: LaunchSpec, kernel_can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay usable when the limit sinks below them; steps after `descriptors` may hang in the account's home."""
    if not kernel_can:
        monkeypatch.setattr(kernel, "_CLOSE_RANGE", 9999)  # Linux before 5.9 has no such call

    def script() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        os.dup2(0, min(100_000, hard - 1))
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        launch._arrange(spec.descriptors, [1, 2], [os.open("/dev/null", os.O_WRONLY)])
        os._exit(3 if os.path.lexists(f"/proc/self/fd/{min(100_000, hard - 1)}") else 0)

    assert in_a_child(script) == 0


@pytest.mark.parametrize(("machine", "number"), [("s390x", 280), ("riscv64", 219), ("ppc64le", 271), ("x86_64", 250)])
def test_the_number_of_keyctl(machine: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6", "1", machine)))
    assert kernel._keyctl() == number


def test_an_unknown_processor_is_no_reason_to_skip_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6", "1", "vax")))
    with pytest.raises(OSError, match="number on vax"):
        kernel.join_new_session_keyring()
