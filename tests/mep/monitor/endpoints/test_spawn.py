"""From a plan to a program that runs: as a real account, with the descriptors that it is promised, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import gc
import json
import os
import pwd
import resource
import select
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.waiting import aiountil
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.endpoints import record, spawn
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.table import EndpointTable
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages import quota
from mep.privileged import kernel
from mep.privileged.launch import LaunchFailure
from mep.processes.pidfd import has_ended
from mep.processes.process import audit_session_of
from mep.processes.sealed_file import SealedFile
from mep.profile.config import ManagerConfig
from mep.profile.sections.limits import Limits
from mep.profile.sections.resources import Resources
from mep.request.account import Account
from mep.request.launch_plan import LaunchPlan
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint
from tests.conftest import need
from tests.hanging import hang
from tests.mep.credentials import StubSealer, plain, with_sealed
from tests.mep.monitor.endpoints.neighbours import Heard, NoScopes
from tests.own_children import own_children

pytestmark = pytest.mark.usefixtures("root")


BEFORE: set[int] = set()
"""The children that this process had before: other tests leave some that nobody waits for."""


@pytest.fixture(autouse=True)
def before() -> None:
    gc.collect()  # what earlier tests have left closes its descriptors now
    BEFORE.clear()
    BEFORE.update(own_children())


Plan = Callable[..., LaunchPlan]
Turn = Callable[[], AbstractAsyncContextManager[object]]
Held = Callable[[UserEndpoint], Awaitable[None]]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalAccount]:
    with LocalAccount("meptest_spawn") as made:
        yield made


@pytest.fixture
def account(local: LocalAccount) -> Account:
    entry = pwd.getpwnam(local.name)
    groups = tuple(os.getgrouplist(local.name, local.gid))
    return Account(local.name, local.uid, local.gid, entry.pw_gecos, entry.pw_dir, entry.pw_shell, groups)


@pytest.fixture
def command(command: StartEndpoint) -> StartEndpoint:
    """As it comes to a launch."""
    return with_sealed(command)


CREDENTIALS = {"task_queue_info": {"connection_url": "amqp://user:hunter2@127.0.0.1/"}}


@pytest.fixture
def plan(account: Account, command: StartEndpoint) -> Plan:
    def make(script: str, **changed: object) -> LaunchPlan:
        facts: dict[str, object] = {
            "argv": ("/bin/sh", "-c", script),
            "environment": {"PATH": "/usr/bin:/bin"},
            "account": account,
            "log": (f"{account.home}/.globus_compute/{command.name}", "endpoint.log"),
            "handover": {"config": "engine: {}", "ep_info": {"matched": 1}},
            "credentials": plain(CREDENTIALS).file,
            "pam": None,
            "audited": False,
            "configuration": "c0ffee",
        }
        return LaunchPlan(**{**facts, **changed})  # type: ignore[arg-type]

    return make


@pytest.fixture
def run(tmp_path: Path, command: StartEndpoint) -> Callable[[LaunchPlan, Callable[..., Awaitable[None]]], None]:
    """Spawns by a plan in an event loop, and hands the user endpoint on; nothing is left afterwards."""

    def run(plan: LaunchPlan, story: Callable[..., Awaitable[None]]) -> None:
        async def spawned() -> None:
            endpoint = await spawn.spawn(plan, command, tmp_path / command.name, State.STARTING, {}, nothing)
            try:
                await story(endpoint)
            finally:
                end(endpoint)

        asyncio.run(spawned())

    return run


def test_the_program_reads_its_hand_over(plan: Plan, run: Callable[..., None], account: Account) -> None:
    made = plan("cat > said.new; mv said.new said; sleep 3600; true")
    said = Path(account.home, "said")

    async def story(endpoint: UserEndpoint) -> None:
        await aiountil(said.exists, "what it has read")
        handover = json.loads(said.read_text())
        assert handover["amqp_creds"] == CREDENTIALS
        assert handover["config"] == "engine: {}"
        assert handover["ep_info"] == {"matched": 1, "posix_ppid": os.getpid()}
        assert handover["enckey"] == endpoint.credentials.key
        assert (handover["mem_fd"], handover["report_fd"]) == (3, 5)
        assert "audit_fd" not in handover
        assert said.stat().st_uid == account.uid
        said.unlink()

    run(made, story)


def test_what_credentials_hold_besides_does_not_take_the_place_of_ours(
    plan: Plan, run: Callable[..., None], account: Account
) -> None:
    """The monitor does not read them, so they may be no object, and go on with what is ours to say."""
    odd = SealedFile.of(b'{}, "config": "theirs", "enckey": "theirs", "mem_fd": 0, "ep_info": 5')
    made = plan("cat > said.new; mv said.new said; sleep 3600; true", credentials=odd)
    said = Path(account.home, "said")

    async def story(endpoint: UserEndpoint) -> None:
        await aiountil(said.exists, "what it has read")
        handover = json.loads(said.read_text())
        assert (handover["config"], handover["mem_fd"]) == ("engine: {}", 3)
        assert (handover["enckey"], handover["ep_info"]["matched"]) == (endpoint.credentials.key, 1)
        said.unlink()

    run(made, story)


def test_nobody_can_change_the_hand_over(plan: Plan, run: Callable[..., None]) -> None:
    made = plan("sleep 3600; true")

    async def story(endpoint: UserEndpoint) -> None:
        for flags in (os.O_WRONLY, os.O_RDWR):
            descriptor = os.open(f"/proc/{endpoint.pid}/fd/0", flags)
            with pytest.raises(PermissionError):
                os.write(descriptor, b"x")
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    run(made, story)


@pytest.mark.parametrize("audited", [False, True])
def test_it_has_its_descriptors_and_no_others(plan: Plan, run: Callable[..., None], audited: bool) -> None:
    made = plan("echo ready >&5; sleep 3600; true", audited=audited)

    async def story(endpoint: UserEndpoint) -> None:
        await aiountil(lambda: readable(endpoint.pipe), "its word")
        assert os.read(endpoint.pipe, 100) == b"ready\n"  # type: ignore[arg-type]
        numbers = {int(name) for name in os.listdir(f"/proc/{endpoint.pid}/fd")}
        assert numbers - {10} == {0, 1, 2, 3, 5} | ({4} if audited else set())  # the shell may keep one of its own
        assert os.readlink(f"/proc/{endpoint.pid}/fd/3") == str(endpoint.folder / "credentials")
        assert flags(endpoint.pid, 3) & os.O_ACCMODE == os.O_RDONLY

    run(made, story)


def test_it_is_on_record_before_it_runs(plan: Plan, tmp_path: Path, command: StartEndpoint) -> None:
    folder = tmp_path / command.name

    async def story() -> None:
        async def while_held(endpoint: UserEndpoint) -> None:
            on_record = record.load(folder)
            assert not on_record.executed and on_record.pid == endpoint.pid
            assert Path(f"/proc/{endpoint.pid}").stat().st_uid == 0, "it waits at the gate, still root"
            on_record.close()
            endpoint.scope = "its.scope"

        endpoint = await spawn.spawn(plan("sleep 3600; true"), command, folder, State.RUNNING, {}, while_held)
        on_record = record.load(folder)
        assert on_record.executed and on_record.state is State.RUNNING
        assert (on_record.scope, on_record.configuration) == ("its.scope", "c0ffee")
        on_record.close()
        end(endpoint)

    asyncio.run(story())


def test_limits_are_its_own(plan: Plan, tmp_path: Path, command: StartEndpoint) -> None:
    async def story() -> None:
        limits = {resource.RLIMIT_NPROC: 77}
        endpoint = await spawn.spawn(plan("sleep 3600"), command, tmp_path / "a", State.RUNNING, limits, nothing)
        lines = Path(f"/proc/{endpoint.pid}/limits").read_text().splitlines()
        assert [line.split()[2:4] for line in lines if line.startswith("Max processes")] == [["77", "77"]]
        end(endpoint)

    asyncio.run(story())


class Changed(Exception):
    """Somebody changes his mind."""


def refused(made: LaunchPlan, command: StartEndpoint, folder: Path, while_held: Held) -> Exception:
    """Why nothing was started; nothing is left behind."""
    before = set(os.listdir("/proc/self/fd"))

    async def story() -> Exception:
        held: list[int] = []

        async def hold(endpoint: UserEndpoint) -> None:
            held.append(os.pidfd_open(endpoint.pid))
            await while_held(endpoint)

        with pytest.raises((Refused, Changed)) as caught:
            await spawn.spawn(made, command, folder, State.STARTING, {}, hold)
        assert not folder.exists()
        for pidfd in held:
            await aiountil(lambda pidfd=pidfd: has_ended(pidfd), "its end")
            os.close(pidfd)
        await aiountil(no_children, "it is reaped")
        return caught.value

    error = asyncio.run(story())
    assert set(os.listdir("/proc/self/fd")) == before, "something stays open"
    return error


def test_who_is_not_let_through_the_gate_leaves_nothing(plan: Plan, tmp_path: Path, command: StartEndpoint) -> None:
    async def while_held(endpoint: UserEndpoint) -> None:
        raise Changed

    made = plan("touch $HOME/ran")
    assert isinstance(refused(made, command, tmp_path / "a", while_held), Changed)
    assert not Path(made.account.home, "ran").exists()


@pytest.mark.parametrize(
    ("changed", "admin", "user"),
    [
        ({"argv": ("/no/such/program",)}, "step 'exec' failed", "could not start a process"),
        ({"argv": ("/etc/passwd",)}, "/etc/passwd has mode 0644", "could not start a process"),
        ({"log": ("/root/uep", "endpoint.log")}, "step 'log' failed", "cannot be written to"),
    ],
    ids=["no program", "no rights", "no log"],
)
def test_the_step_that_fails_is_named(
    plan: Plan, tmp_path: Path, command: StartEndpoint, changed: dict[str, object], admin: str, user: str
) -> None:
    error = refused(plan("true", **changed), command, tmp_path / "a", nothing)
    assert isinstance(error, Refused)
    assert error.refusal.stage == "launch"
    assert admin in error.refusal.reason_for_admin
    assert user in error.refusal.reason_for_user


@pytest.mark.parametrize(("number", "says"), [(errno.ENOSPC, "home folder is full"), (errno.EDQUOT, "over its quota")])
def test_a_full_home_is_called_that(plan: Plan, number: int, says: str) -> None:
    failure = LaunchFailure("log", number, os.strerror(number))
    refusal = spawn._launch_refused(failure, plan("true")).refusal
    assert says in refusal.reason_for_user and "/" not in refusal.reason_for_user
    assert os.strerror(number) in refusal.reason_for_admin


def test_root_is_never_started(plan: Plan, tmp_path: Path, command: StartEndpoint, account: Account) -> None:
    made = plan("true", account=dataclasses.replace(account, uid=0))
    error = refused(made, command, tmp_path / "a", nothing)
    assert isinstance(error, Refused) and "not started" in error.refusal.reason_for_admin


def test_a_start_that_hangs_is_refused_and_leaves_nothing(
    plan: Plan, tmp_path: Path, command: StartEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still between the gate and exec, as before a home that does not answer."""
    monkeypatch.setattr(spawn, "EXEC_TIMEOUT", 0.3)

    async def story() -> None:
        async def stand_still(endpoint: UserEndpoint) -> None:
            os.kill(endpoint.pid, signal.SIGSTOP)

        with pytest.raises(Refused) as caught:
            await spawn.spawn(plan("true"), command, tmp_path / "a", State.STARTING, {}, stand_still)
        assert "home or log" in caught.value.refusal.reason_for_admin
        await aiountil(no_children, "it is reaped")

    asyncio.run(story())
    assert not (tmp_path / "a").exists()


def test_starts_that_hang_in_their_users_home_leave_all_places_to_others(
    plan: Plan, tmp_path: Path, command: StartEndpoint, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs there cannot be killed. Until it has ended it counts among those of its account."""
    monkeypatch.setattr(quota, "PLACES", 1)
    data = Path(account.home, ".globus_compute")
    data.mkdir(exist_ok=True)
    hanging = hang(data)

    async def story() -> None:
        places, heard = quota.Quota(), 0

        async def start() -> None:
            deadline = asyncio.get_running_loop().time() + 60
            with places.start("hangs", account.uid, Limits(), {}, deadline) as turn:
                async with turn() as place:
                    await spawn.spawn(plan("true"), command, tmp_path / "a", State.STARTING, {}, nothing, place)

        def asked() -> bool:
            nonlocal heard
            heard += hanging.take()
            return heard > 0

        def another(uid: int, limits: Limits) -> AbstractContextManager[Turn]:
            return places.start("another", uid, limits, {}, asyncio.get_running_loop().time())

        starting = asyncio.ensure_future(start())
        await aiountil(asked, "it to hang")
        with another(account.uid + 1, Limits()) as turn:
            async with turn():
                pass
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not no_children()
        with pytest.raises(Refused, match="max_ueps_per_user"), another(account.uid, Limits(max_ueps_per_user=1)):
            pass
        with another(account.uid + 1, Limits(max_ueps_per_user=1)) as turn:
            async with turn():
                pass
        hanging.stop()
        await aiountil(no_children, "it is reaped")
        with another(account.uid, Limits(max_ueps_per_user=1)) as turn:
            async with turn():
                pass

    try:
        asyncio.run(story())
    finally:
        hanging.stop()


def test_a_start_that_is_given_up_leaves_nothing(plan: Plan, tmp_path: Path, command: StartEndpoint) -> None:
    folder = tmp_path / "a"
    before = set(os.listdir("/proc/self/fd"))

    async def story() -> None:
        held = asyncio.Event()

        async def while_held(endpoint: UserEndpoint) -> None:
            held.set()
            await asyncio.Event().wait()

        starting = asyncio.ensure_future(spawn.spawn(plan("true"), command, folder, State.STARTING, {}, while_held))
        await held.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not folder.exists()
        await aiountil(no_children, "it is reaped")

    asyncio.run(story())
    assert set(os.listdir("/proc/self/fd")) == before, "something stays open"


def test_wherever_descriptors_run_out_nothing_is_left(plan: Plan, tmp_path: Path, command: StartEndpoint) -> None:
    made, folder = plan("sleep 3600; true", audited=True), tmp_path / "a"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failures = 0

    async def story() -> None:
        nonlocal failures
        before = set(os.listdir("/proc/self/fd"))
        for limit in range(len(before), 100):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                endpoint = await spawn.spawn(made, command, folder, State.STARTING, {}, nothing)
            except Refused:
                failures += 1
            else:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                end(endpoint)
                return
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await aiountil(no_children, "it is reaped")
            assert set(os.listdir("/proc/self/fd")) == before, f"something stays open with {limit} descriptors"
            assert not folder.exists()

    asyncio.run(story())
    assert failures > 10, "they ran out at many places"


# Through the table: the parent of a user endpoint knows how it ended


def launched(
    tmp_path: Path, story: Callable[[EndpointTable, Heard, NoScopes], Awaitable[None]], **config: object
) -> None:
    async def told() -> None:
        heard, containment = Heard(), NoScopes()
        settings = ManagerConfig(**config)  # type: ignore[arg-type]
        table = EndpointTable(tmp_path, lambda: settings, containment, heard, StubSealer(), heard.counts.append)  # type: ignore[arg-type]
        await story(table, heard, containment)
        await table.stop_all()
        await aiountil(no_children, "all are reaped")

    asyncio.run(told())


def test_when_nobody_seals_its_credentials_it_does_not_start(
    plan: Plan, tmp_path: Path, command: StartEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StubSealer, "away", True)

    async def story(table: EndpointTable, heard: Heard, containment: NoScopes) -> None:
        with pytest.raises(Refused, match="cannot be sealed: the worker is away") as caught:
            await table.launch(plan("true"), command)
        assert caught.value.refusal.stage == "manager", "no fault of its user's, so nothing that the breaker counts"
        assert heard.held_ == [] and list(tmp_path.iterdir()) == []

    launched(tmp_path, story)


@pytest.mark.parametrize(
    ("script", "ending", "died", "useless"),
    [
        ("echo ready >&5; exit 0", "exit status 0", False, True),
        ("echo ready >&5; exit 3", "exit status 3", True, True),
        ("echo ready >&5; echo working >&5; exit 3", "exit status 3", True, False),
        ("exit 0", "exit status 0", True, True),
        ("kill -9 $$", "signal 9 (SIGKILL)", True, True),
    ],
)
def test_how_it_ended(
    plan: Plan, tmp_path: Path, command: StartEndpoint, script: str, ending: str, died: bool, useless: bool
) -> None:
    async def story(table: EndpointTable, heard: Heard, containment: NoScopes) -> None:
        endpoint = await table.launch(plan(script), command)
        assert heard.held_ == [endpoint.pid] and heard.counts == [1]
        await aiountil(lambda: heard.exits, "its end")
        ((pid, report),) = heard.exits
        assert (pid, report.ending, report.useless) == (endpoint.pid, ending, useless)
        assert report.before_check_in == ("ready" not in script)
        assert report.cpu_seconds is not None and report.peak_memory is not None
        assert [who for who, _ in heard.deaths] == ([pid] if died else [])
        assert containment.cleared == [pid]
        assert list(table) == [] and heard.counts == [1, 0]

    launched(tmp_path, story)


def test_a_program_that_tells_nothing_is_taken_for_running(plan: Plan, tmp_path: Path, command: StartEndpoint) -> None:
    async def story(table: EndpointTable, heard: Heard, containment: NoScopes) -> None:
        endpoint = await table.launch(plan("exit 0"), command)
        assert endpoint.state is State.RUNNING
        await aiountil(lambda: heard.exits, "its end")
        assert heard.deaths == [] and not heard.exits[0][1].before_check_in

    launched(tmp_path, story, uep_command=("/bin/sh",))


def test_a_launch_that_is_refused_while_held_is_not_in_the_table(
    plan: Plan, tmp_path: Path, command: StartEndpoint
) -> None:
    async def story(table: EndpointTable, heard: Heard, containment: NoScopes) -> None:
        heard.refuses = Refused("audit", "cannot be on record", "Try later.")
        with pytest.raises(Refused, match="cannot be on record"):
            await table.launch(plan("sleep 3600"), command)
        assert list(table) == [] and heard.exits == []
        assert record.folders(tmp_path) == []

    launched(tmp_path, story)


@pytest.mark.parametrize(
    ("resources", "require_scope", "refused"),
    [(Resources(), True, True), (Resources(tasks_max=5), False, True), (Resources(), False, False)],
)
def test_what_cannot_be_contained_is_not_started(
    plan: Plan,
    tmp_path: Path,
    command: StartEndpoint,
    resources: Resources,
    require_scope: bool,
    refused: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A scope is optional where the site says so, limits never are."""

    async def story(table: EndpointTable, heard: Heard, containment: NoScopes) -> None:
        containment.refuses = ContainmentError("no controller")
        if refused:
            with pytest.raises(Refused) as caught:
                await table.launch(plan("sleep 3600"), command)
            assert caught.value.refusal.stage == "containment"
        else:
            await table.launch(plan("sleep 3600"), command)
            assert "no scope of its own" in caplog.text
        assert len(list(table)) == (0 if refused else 1)

    launched(tmp_path, story, resources=resources, require_scope=require_scope)


@pytest.mark.parametrize("by_hand", [False, True])
def test_its_audit_session_is_on_record_if_it_is_its_own(
    plan: Plan, tmp_path: Path, command: StartEndpoint, by_hand: bool
) -> None:
    """by_hand: the manager has the login uid, and with it the session, of whoever has started it."""
    need(kernel.login_uid() is not None, "the kernel has no audit")

    async def story(table: EndpointTable, heard: Heard, containment: NoScopes) -> None:
        planned = plan("sleep 3600")
        if by_hand:
            kernel.set_login_uid(planned.account.uid)
        endpoint = await table.launch(planned, command)
        found, ours = audit_session_of(endpoint.pid), audit_session_of(os.getpid())
        assert found is not None
        assert (found == ours) == by_hand
        assert record.whose(endpoint.folder)[2] == (None if by_hand else found)

    forked = os.fork()  # what it has of the login uid is for good
    if forked == 0:
        try:
            BEFORE.clear()
            launched(tmp_path, story)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(forked, 0)[1] == 0


async def nothing(_: UserEndpoint) -> None:
    """While it is held."""


def end(endpoint: UserEndpoint) -> None:
    os.kill(endpoint.pid, signal.SIGKILL)
    os.waitpid(endpoint.pid, 0)
    endpoint.close()


def no_children() -> bool:
    """Whether what these tests have started has ended, and been reaped."""
    return not own_children() - BEFORE


def readable(descriptor: int | None) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def flags(pid: int, descriptor: int) -> int:
    text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("flags:")).split()[1], 8)
