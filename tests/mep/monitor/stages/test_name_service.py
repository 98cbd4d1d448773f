"""Accounts from the real name service: asked directly, and through the name service helper, a real process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import grp
import json
import os
import pwd
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lab.accounts import LocalAccount
from lab.waiting import aiountil
from mep.accounts import look_up, server
from mep.monitor.stages import name_service
from mep.monitor.stages.name_service import NameService
from mep.processes import helper
from mep.processes.helper import HelperUnavailable
from mep.processes.message import BODY, HEADER
from mep.processes.name_service_protocol import MOST_GROUPS, FromNameService
from mep.request.account import Account
from mep.request.refusal import Refusal, Refused
from tests.conftest import need

T = TypeVar("T")
UNKNOWN = ["no-such-account", "", "a\0b", "\ud800", "0", "root\n", "a\nb", '"', "x" * 100_000]


def find(username: str) -> Account:
    return name_service.of_exactly_that_name(username, look_up.account(username))


NOBODY = find("nobody")


def test_an_account_has_all_its_groups() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    found = find(name)
    assert found.uid == os.getuid()
    assert set(os.getgrouplist(name, found.gid)) == set(found.groups)


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_account_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        find(name)
    assert caught.value.refusal.stage == "account"


def test_an_answer_with_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    root = pwd.getpwnam("root")
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: root)  # as some name services do: ROOT is root to them
    with pytest.raises(Refused) as caught:
        find("ROOT")
    assert "'ROOT'" in caught.value.refusal.reason_for_admin
    assert "answers with 'root'" in caught.value.refusal.reason_for_admin


def test_groups_have_ids_or_none() -> None:
    assert look_up.group_ids(["root", "no-such-group", "a\0b", "\ud800"]) == {
        "root": 0,
        "no-such-group": None,
        "a\0b": None,
        "\ud800": None,
    }


@pytest.fixture(scope="module")
def alice(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("mepdirtest_a", arguments=("--groups", "users")) as made:
        yield made


def with_helper(work: Callable[[NameService], Awaitable[T]]) -> T:
    async def run() -> T:
        accounts = NameService(NOBODY)
        try:
            return await work(accounts)
        finally:
            await accounts.stop()

    return asyncio.run(run())


def pid_of(accounts: NameService) -> int:
    assert accounts._helper.current is not None
    return accounts._helper.current.process.pid


async def refusal(look_up: Awaitable[object]) -> Refusal:
    with pytest.raises(Refused) as caught:
        await look_up
    assert caught.value.refusal.stage == "account"
    return caught.value.refusal


def test_the_helper_answers_as_the_name_service_does(alice: LocalAccount) -> None:
    async def work(accounts: NameService) -> None:
        await accounts.start()
        found = await accounts.find(alice.name)
        assert found == find(alice.name)
        assert (found.uid, found.home) == (alice.uid, str(alice.home))
        assert set(found.groups) == {alice.gid, grp.getgrnam("users").gr_gid}
        assert (await accounts.find("root")).uid == 0  # whom to admit is another stage's matter
        names = ["root", "no-such-group", "a\0b", "\ud800", "root"]
        assert await accounts.group_ids(names) == look_up.group_ids(names)
        assert await accounts.group_ids([]) == {}

    with_helper(work)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", UNKNOWN)
def test_the_helper_refuses_an_unknown_account_in_the_same_words(name: str) -> None:
    with pytest.raises(Refused) as caught:
        find(name)
    assert with_helper(lambda accounts: refusal(accounts.find(name))) == caught.value.refusal


@pytest.mark.usefixtures("root")
def test_the_helper_has_no_rights() -> None:
    async def work(accounts: NameService) -> None:
        await accounts.start()
        pid = pid_of(accounts)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
        assert int(status["CapEff"], 16) == 0
        limits = [line.split()[:5] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()]
        assert ["Max", "core", "file", "size", "0"] in limits
        assert ["Max", "file", "size", str(MOST_GROUPS), str(MOST_GROUPS)] in limits
        look = ["cat", f"/proc/{pid}/environ"]  # for which the kernel asks what it asks for a look at the memory
        other = subprocess.run(
            look, user="nobody", group=pwd.getpwnam("nobody").pw_gid, extra_groups=[], capture_output=True, check=False
        )
        assert b"Permission denied" in other.stderr
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= 4

    with_helper(work)


def test_many_look_ups_at_once(alice: LocalAccount) -> None:
    async def work(accounts: NameService) -> None:
        unknown = [f"no-such-account-{i}" for i in range(200)]
        known = [alice.name, "root", "daemon", "nobody"] * 50
        found = await asyncio.gather(*map(accounts.find, known + unknown), return_exceptions=True)
        assert found[:200] == [find(name) for name in known]
        assert all(
            isinstance(error, Refused) and name in str(error) for name, error in zip(unknown, found[200:], strict=True)
        )

    with_helper(work)


@pytest.mark.usefixtures("root")
def test_what_is_being_looked_up_is_not_asked_again() -> None:
    async def work(accounts: NameService) -> None:
        await accounts.start()
        os.kill(pid_of(accounts), signal.SIGSTOP)
        given_up, *others = [asyncio.create_task(accounts.find("root")) for _ in range(10)]
        await aiountil(lambda: accounts._under_way, "the question to be under way")
        assert accounts._helper.current is not None
        assert len(accounts._helper.current._owed) == 1
        given_up.cancel()  # the others still want it
        os.kill(pid_of(accounts), signal.SIGCONT)
        assert [found.uid for found in await asyncio.gather(*others)] == [0] * 9
        assert not accounts._under_way

    with_helper(work)


def test_a_helper_that_is_killed_with_look_ups_under_way_is_replaced(alice: LocalAccount) -> None:
    async def work(accounts: NameService) -> None:
        await accounts.start()
        first = pid_of(accounts)
        os.kill(first, signal.SIGSTOP)
        names = [alice.name, "root", "daemon"]
        asked = [asyncio.create_task(accounts.find(name)) for name in names]
        await aiountil(lambda: len(accounts._under_way) == len(names), "the questions to be under way")
        os.kill(first, signal.SIGKILL)
        assert [found.name for found in await asyncio.gather(*asked)] == names
        assert pid_of(accounts) != first
        os.kill(pid_of(accounts), signal.SIGKILL)  # and now without any
        assert (await accounts.find("root")).uid == 0
        assert not Path(f"/proc/{first}").exists(), "nobody reaped it"

    with_helper(work)


@pytest.mark.usefixtures("root")
def test_a_helper_that_stands_still_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(accounts: NameService) -> None:
        await accounts.start()
        first = pid_of(accounts)
        os.kill(first, signal.SIGSTOP)
        monkeypatch.setattr(name_service, "TIMEOUT", 0.5)
        refused = await refusal(accounts.find("root"))
        assert "the name service does not answer" in refused.reason_for_admin
        assert "try again later" in refused.reason_for_user
        monkeypatch.undo()
        assert (await accounts.find("root")).uid == 0
        assert pid_of(accounts) != first

    with_helper(work)


ALICE: dict[str, Any] = {
    "name": "alice",
    "uid": 5,
    "gid": 6,
    "gecos": "",
    "home": "/",
    "shell": "/bin/sh",
    "shell_fault": "",
}
SIX = (6).to_bytes(4, "little")


def said(kind: int, number: int, body: object) -> bytes:
    return HEADER.pack(kind, number) + json.dumps(body).encode()


@pytest.fixture
def liar(root: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a program in the helper's place that answers the first question with this, whatever it was. groups: the
    content of the file that comes with it; None for no file."""

    def install(reply: bytes, groups: bytes | None = None, *, ready: bool = True) -> None:
        program = folder / "liar.py"
        program.write_text(
            "import socket\n"
            "from mep.processes.sealed_file import sealed\n"
            "connection = socket.socket(fileno=0)\n"
            f"if {ready}:\n"
            f"    connection.send({said(FromNameService.READY, 0, {})!r})\n"
            "    connection.recv(9999)\n"
            f"groups = {groups!r}\n"
            "files = [] if groups is None else [sealed('groups', groups)]\n"
            f"socket.send_fds(connection, [{reply!r}], files)\n"
            "while connection.recv(9999): pass\n"
        )
        monkeypatch.setattr(helper, "_ARGUMENTS", ("-I", str(program)))

    return install


def test_an_honest_answer_passes_the_checks(liar: Callable[..., None]) -> None:
    liar(said(FromNameService.FOUND, 1, ALICE), SIX)
    assert with_helper(lambda accounts: accounts.find("alice")).groups == (6,)


@pytest.mark.parametrize(
    ("reply", "groups"),
    [
        (b"nonsense", None),
        (b"\xff", None),
        (b"x" * 100_000, None),
        (said(FromNameService.READY, 0, {}), None),
        (said(FromNameService.READY, 1, {}), None),
        (said(FromNameService.MISSING, 0, {}), None),
        (said(FromNameService.MISSING, 2, {}), None),
        (said(FromNameService.MISSING, 1, []), None),
        (said(FromNameService.MISSING, 1, {"more": 1}), None),
        (said(FromNameService.MISSING, 1, {}), SIX),
        (said(FromNameService.GROUP_ID, 1, {"id": 6}), None),
        (said(FromNameService.FAILED, 1, {}), None),
        (said(FromNameService.FAILED, 1, {"reason": None}), None),
        (said(7, 1, {}), None),
        (HEADER.pack(FromNameService.MISSING, 1) + b"[" * BODY, None),
        (said(FromNameService.FOUND, 1, ALICE), None),
        (said(FromNameService.FOUND, 1, ALICE), b"xyz"),
        (said(FromNameService.FOUND, 1, ALICE), b"\xff" * 4),
        (said(FromNameService.FOUND, 1, ALICE), SIX * (MOST_GROUPS // 4 + 1)),
        *(
            (said(FromNameService.FOUND, 1, {**ALICE, **change}), SIX)
            for change in (
                {"uid": "5"},
                {"uid": True},
                {"uid": 5.0},
                {"uid": -1},
                {"uid": 2**32 - 1},
                {"gid": None},
                {"groups": [6]},
                {"home": None},
                {"shell": "/bin/\0sh"},
                {"gecos": "x" * 5000},
                {"shell_fault": "what it likes"},
                {"shell_fault": None},
                {"more": 1},
            )
        ),
    ],
    ids=range(32),
)
def test_a_helper_that_answers_nonsense_is_replaced(
    liar: Callable[..., None], monkeypatch: pytest.MonkeyPatch, reply: bytes, groups: bytes | None
) -> None:
    async def work(accounts: NameService) -> None:
        liar(reply, groups)
        refused = await refusal(accounts.find("alice"))
        assert "makes no sense" in refused.reason_for_admin
        assert "try again later" in refused.reason_for_user
        monkeypatch.undo()
        assert (await accounts.find("root")).uid == 0

    with_helper(work)


def test_a_helper_may_not_answer_for_another_name(liar: Callable[..., None]) -> None:
    liar(said(FromNameService.FOUND, 1, ALICE), SIX)
    refused = with_helper(lambda accounts: refusal(accounts.find("bob")))
    assert "answers with 'alice'" in refused.reason_for_admin
    assert "alice" not in refused.reason_for_user


@pytest.mark.parametrize("body", [{}, {"id": True}, {"id": "0"}, {"id": -1}, {"id": None}, {"id": 0, "more": 0}])
def test_ids_of_groups_are_checked_too(liar: Callable[..., None], body: object) -> None:
    liar(said(FromNameService.GROUP_ID, 1, body))
    assert "makes no sense" in with_helper(lambda accounts: refusal(accounts.group_ids(["root"]))).reason_for_admin


def test_a_look_up_that_fails_is_refused_with_the_reason(liar: Callable[..., None]) -> None:
    liar(said(FromNameService.FAILED, 1, {"reason": "OSError: out of \x1bluck"}))
    refused = with_helper(lambda accounts: refusal(accounts.find("alice")))
    assert "out of \\x1bluck" in refused.reason_for_admin
    assert "try again later" in refused.reason_for_user


def test_a_program_that_does_not_work_is_noticed_at_the_start(liar: Callable[..., None]) -> None:
    liar(b"nonsense", ready=False)
    with pytest.raises(HelperUnavailable, match=r"does not work.*no sense"):
        with_helper(lambda accounts: accounts.start())


@pytest.mark.usefixtures("root")
def test_an_account_that_cannot_be_is_named() -> None:
    with pytest.raises(HelperUnavailable, match="is root"):
        asyncio.run(NameService(find("root")).start())
    gone = NameService(dataclasses.replace(NOBODY, name="no-such-account"))
    with pytest.raises(HelperUnavailable, match="no such account"):
        asyncio.run(gone.start())
    refused = asyncio.run(refusal(gone.find("root")))
    assert "no-such-account" in refused.reason_for_admin
    assert "no-such-account" not in refused.reason_for_user


@pytest.mark.usefixtures("root")
def test_a_program_that_cannot_be_executed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/null").open("rb") as nothing:
        monkeypatch.setattr(helper, "loader", nothing.fileno)
        with pytest.raises(HelperUnavailable, match="step program: not proven: the account can read its program"):
            asyncio.run(NameService(NOBODY).start())


@pytest.mark.usefixtures("root")
def test_stop_refuses_what_is_under_way_and_what_comes_later() -> None:
    async def work(accounts: NameService) -> None:
        await accounts.start()
        pid = pid_of(accounts)
        os.kill(pid, signal.SIGSTOP)
        under_way = asyncio.create_task(accounts.find("root"))
        await aiountil(lambda: accounts._under_way, "the question to be under way")
        await accounts.stop()
        assert "being stopped" in (await refusal(under_way)).reason_for_user
        assert "being stopped" in (await refusal(accounts.find("root"))).reason_for_user
        assert not Path(f"/proc/{pid}").exists()

    with_helper(work)


class SlowNameService:
    """A part of the system's name service that knows nobody, and says so never for names that begin with "slow".

    It answers nss-systemd, which asks every socket in a folder, in systemd's language: JSON objects that end in NUL.
    """

    FOLDER = Path("/run/systemd/userdb")

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answering = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SlowNameService]:
        made = [folder for folder in (self.FOLDER, *self.FOLDER.parents) if not folder.exists()]
        self.FOLDER.mkdir(parents=True, exist_ok=True)
        path = self.FOLDER / f"org.mep.test{os.getpid()}"
        # A full queue of connections is "no such account" to nss-systemd; systemd's own services have 4096 places.
        server = await asyncio.start_unix_server(self._serve, path, backlog=4096)
        path.chmod(0o666)
        try:
            yield self
        finally:
            self.answering.set()
            server.close()
            path.unlink()
            for folder in made:
                folder.rmdir()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever asks the name service here asks this one, too: other tests, with names as long as they like.
        with (
            contextlib.closing(writer),
            contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError),
        ):
            while True:
                request: dict[str, Any] = json.loads((await reader.readuntil(b"\0"))[:-1])
                name = str(request["parameters"].get("userName"))
                self.asked.append(name)
                if name.startswith("slow"):
                    await self.answering.wait()
                writer.write(b'{"error": "io.systemd.UserDatabase.NoRecordFound", "parameters": {}}\0')
                await writer.drain()


def with_slow_name_service(work: Callable[[NameService, SlowNameService], Awaitable[None]]) -> None:
    async def run(accounts: NameService) -> None:
        async with SlowNameService().running() as service:
            await refusal(accounts.find("mep-asks-you"))
            need("mep-asks-you" in service.asked, "needs nss-systemd in /etc/nsswitch.conf")
            await work(accounts, service)

    with_helper(run)


@pytest.mark.usefixtures("root")
def test_a_slow_look_up_does_not_hold_up_others() -> None:
    async def work(accounts: NameService, service: SlowNameService) -> None:
        helper = pid_of(accounts)
        slow = asyncio.create_task(accounts.find("slow-one"))
        await aiountil(lambda: "slow-one" in service.asked, "the question")
        assert (await accounts.find("root")).uid == 0
        assert "does not exist" in (await refusal(accounts.find("mep-other"))).reason_for_admin
        assert not slow.done()
        service.answering.set()
        assert "does not exist" in (await refusal(slow)).reason_for_admin
        assert pid_of(accounts) == helper

    with_slow_name_service(work)


@pytest.mark.usefixtures("root")
def test_a_slow_look_up_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(accounts: NameService, service: SlowNameService) -> None:
        helper = pid_of(accounts)
        monkeypatch.setattr(name_service, "TIMEOUT", 2.0)
        slow = asyncio.create_task(accounts.find("slow-one"))
        await aiountil(lambda: "slow-one" in service.asked, "the question")
        assert (await accounts.find("root")).uid == 0
        assert "'slow-one'" in (await refusal(slow)).reason_for_admin
        service.answering.set()  # what comes now is an answer that nobody waits for
        assert (await accounts.find("root")).uid == 0
        assert pid_of(accounts) == helper

    with_slow_name_service(work)


@pytest.mark.usefixtures("root")
def test_a_helper_whose_threads_are_all_stuck_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(accounts: NameService, service: SlowNameService) -> None:
        helper = pid_of(accounts)
        monkeypatch.setattr(name_service, "TIMEOUT", 2.0)
        stuck = [accounts.find(f"slow-{i}") for i in range(2 * server.THREADS)]
        refusals = await asyncio.gather(*map(refusal, stuck))
        assert all("does not answer" in refused.reason_for_admin for refused in refusals)
        assert (await accounts.find("root")).uid == 0
        assert pid_of(accounts) != helper

    with_slow_name_service(work)
