"""The mapper, its process and real mapping programs: what passes, and what becomes of one that dies, hangs or lies."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from identity.account_name import problem
from lab.waiting import aiountil
from mep.accounts import look_up
from mep.daemon import helper_account
from mep.monitor.stages import mapper_client, mapping_programs
from mep.monitor.stages.fair_queue import MOST_WAITING
from mep.monitor.stages.identification import SHARE, Identification
from mep.monitor.stages.mapper_client import MapperClient
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.monitor.stages.orders_file import MOST
from mep.processes.channel import HEADER
from mep.processes.helper import HelperUnavailable
from mep.processes.mapper_protocol import FromMapper, ToMapper
from mep.processes.sealed_file import sealed
from mep.profile.config import ManagerConfig
from mep.profile.mapping_documents import MappingDocuments, MappingProgram
from mep.reader.files import parse_mapping
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.mapping_program import ProgramFailed
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint
from tests.identity.samples import ALICE, BOB, answer, entry, expression, external, record, text
from tests.mep.commands import MANAGER, UEP

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs here wait for a file; how long one may take is tested elsewhere."""
    monkeypatch.setattr(mapping_programs, "TIME_LIMIT", 120.0)


PATH = Path("/etc/mep/prod/mapping.json")
BOBS = expression({"match": "(bob)@example\\.org"})


def account() -> Account:
    return helper_account.find(ManagerConfig()).mapping


def of(*documents: object) -> MappingDocuments:
    return parse_mapping(PATH, text(*documents))


def command(requester: str = ALICE, name: str = "alice", number: int = 1) -> StartEndpoint:
    identity_set = json.dumps([record(requester, f"{name}@example.org")])
    return StartEndpoint(f"r{number}", "uep.x", UEP, "{}", "{}", {}, requester, f"{name}@example.org", identity_set)


def says(name: str) -> str:
    return f"cat >/dev/null\nprintf '%s' '{answer(entry(name))}'"


async def find(name: str) -> Account | None:
    return look_up.account(name)


def run(story: Callable[[Identification], Awaitable[None]]) -> None:
    async def whole() -> None:
        programs = MappingPrograms(find, account())
        asked = Identification(account(), MANAGER, programs.ask)
        try:
            await asyncio.wait_for(story(asked), 300)
        finally:
            await asked.stop()

    asyncio.run(whole())


def client(asked: Identification) -> MapperClient:
    assert asked._helper.current is not None
    return asked._helper.current


async def refusal(work: Awaitable[object]) -> Refusal:
    with pytest.raises(Refused) as caught:
        await work
    assert caught.value.refusal.stage == "identity"
    return caught.value.refusal


# What passes


def test_the_name_comes_with_the_rule_that_decided() -> None:
    async def story(asked: Identification) -> None:
        found = await asked.identify(command(), of(expression()))
        assert (found.username, found.identity) == ("alice", ALICE)
        assert found.rule.startswith(f"{PATH}:1, document 1, mapping 1: ")
        assert found.candidates == [[{ALICE: ["alice"]}]]

    run(story)


OF_DIRECTORIES = ("Alice", "1alice", "alice@ad.example.org", "a" * 33, "A" * 255)


@pytest.mark.parametrize("name", OF_DIRECTORIES)
def test_names_that_only_directories_have_are_for_sites_that_say_so(name: str) -> None:
    documents = of(expression(entry_to(name)))

    async def story(asked: Identification) -> None:
        told = await refusal(asked.identify(command(), documents))
        assert told.ends_right and "directory_names" in told.reason_for_admin
        allowed = dataclasses.replace(documents, directory_names=True)
        assert (await asked.identify(command(), allowed)).username == name
        assert not (await refusal(asked.identify(command(), documents))).reason_for_user.count(name)

    run(story)


def entry_to(name: str) -> dict[str, object]:
    return {"source": "{username}", "match": ".*", "output": name}


def test_a_program_gives_such_names_too(program: Callable[..., Path]) -> None:
    documents = dataclasses.replace(of(external(program(says("1Alice@ad.example.org")))), directory_names=True)

    async def story(asked: Identification) -> None:
        assert (await asked.identify(command(), documents)).username == "1Alice@ad.example.org"

    run(story)


def test_nobody_is_refused_and_told_which_identity_it_was() -> None:
    async def story(asked: Identification) -> None:
        told = await refusal(asked.identify(command(), of(BOBS)))
        assert told.ends_right
        assert ALICE in told.reason_for_admin and "no mapping gives an account" in told.reason_for_admin
        assert "alice@example.org is not mapped" in told.reason_for_user

    run(story)


LINKED = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("banned", ["alice@example.org", ALICE, LINKED, "private@example.org"])
def test_who_has_a_banned_identity_linked_is_kept_out(banned: str) -> None:
    """Whichever of them asks, whatever account it gives; also where who runs is looked at."""
    both = json.dumps([record(ALICE, "alice@example.org"), record(LINKED, "Private@Example.org")])
    refusals = {
        "another@example.org": Refusal("orders", "the wrong one", "The wrong one."),
        banned: Refusal("orders", "banned", "Banned.", ends_right=True),
    }

    async def story(asked: Identification) -> None:
        for requester in (ALICE, LINKED):
            asks = dataclasses.replace(command(requester), identity_set=both)
            for ask in (asked.identify, asked.identify_without_programs):
                with pytest.raises(Refused) as caught:
                    await ask(asks, of(expression()), refusals)
                assert caught.value.refusal == refusals[banned]
        with pytest.raises(Refused, match="identity"):  # as without a ban
            await asked.identify(dataclasses.replace(command(), identity_set="[5]"), of(BOBS), refusals)
        assert (await asked.identify(command(BOB, "bob"), of(expression()), refusals)).username == "bob"
        many = {f"{'x' * 120}{number}@y": refusals[banned] for number in range(MOST)}
        assert (await asked.identify(command(), of(expression()), many)).username == "alice"

    run(story)


@pytest.mark.parametrize("identity_set", ["", "[", "5", "{}", "[]", "[" * 100_000, '["\\ud800"]'])
def test_a_set_that_is_none_is_refused(identity_set: str) -> None:
    async def story(asked: Identification) -> None:
        spoiled = dataclasses.replace(command(), identity_set=identity_set)
        assert (await refusal(asked.identify(spoiled, of(expression())))).ends_right
        assert (await asked.identify(command(), of(expression()))).username == "alice"
        assert client(asked).lost is None

    run(story)


def test_long_and_odd_texts_pass() -> None:
    """Texts of strangers and of the site that are longer than a message."""
    odd = "\U0001f600" * 1024
    long = expression({"match": "|".join(["x" * 500] * 16), "output": "nobody"}, {})

    async def story(asked: Identification) -> None:
        told = await refusal(asked.identify(dataclasses.replace(command(), requester=odd), of(expression())))
        assert "is not an identity id" in told.reason_for_admin
        hostile = dataclasses.replace(command(), identity_set=json.dumps([record(username=f"{odd[:900]}@x")]))
        assert (await refusal(asked.identify(hostile, of(long)))).ends_right
        too_long = dataclasses.replace(command(), identity_set=f'["{"x" * 2**20}"]')
        assert not (await refusal(asked.identify(too_long, of(expression())))).ends_right
        assert (await asked.identify(command(), of(long))).username == "alice"

    run(story)


def test_a_program_is_run_as_the_mapping_account_or_as_the_one_that_is_named(
    program: Callable[..., Path], public: Path
) -> None:
    seen = public / "seen"
    seen.touch()
    seen.chmod(0o666)
    note = f'id -un >> {seen}; echo "$@" >> {seen}; cat >/dev/null'
    usual, named = program(note, name="usual"), program(f"{note}\n{says('alice')}", name="named")

    async def story(asked: Identification) -> None:
        documents = of(external(usual, "x"), external(named, run_as="daemon"))
        assert (await asked.identify(command(), documents)).username == "alice"
        arguments = f"-c 145812c8-decc-41f1-83cf-bb2a85a2a70b -s {MANAGER} -a"
        assert seen.read_text().splitlines() == ["mep-map", f"x {arguments}", "daemon", arguments]

    run(story)


def test_a_failing_program_is_a_temporary_refusal(program: Callable[..., Path]) -> None:
    failing = program("exit 3")

    async def story(asked: Identification) -> None:
        told = await refusal(asked.identify(command(), of(external(failing), expression())))
        assert not told.ends_right
        assert "status 3" in told.reason_for_admin
        assert "temporary" in told.reason_for_user and str(failing) not in told.reason_for_user
        passed_over = of(external(failing, may_fail=True), expression())
        assert (await asked.identify(command(), passed_over)).username == "alice"
        without = asked.identify_without_programs(command(), of(external(failing)))
        assert not (await refusal(without)).ends_right

    run(story)


def test_many_are_decided_at_once_and_by_their_own_documents(program: Callable[..., Path]) -> None:
    """Of several reloads, with and without programs; and the documents are handed over once."""
    asks = of(external(program(says("carol"))))
    by = [(of(expression({"output": f"u{n}"})), f"u{n}") for n in range(5)] + [(asks, "carol")]

    async def story(asked: Identification) -> None:
        everybody = [(command(number=n), *by[n % len(by)]) for n in range(200)]
        found = await asyncio.gather(*(asked.identify(each, documents) for each, documents, _ in everybody))
        assert [each.username for each in found] == [name for _, _, name in everybody]
        assert client(asked)._owed == {}
        given = client(asked)._documents
        before = dict(given)
        await asyncio.gather(*(asked.identify(command(number=n), by[0][0]) for n in range(50)))
        assert len(set(given.values()) - set(before.values())) <= 1

    run(story)


def test_who_floods_is_refused_for_now_and_nobody_else_notices() -> None:
    async def story(asked: Identification) -> None:
        await asked.start()
        flood = [asyncio.ensure_future(asked.identify(command(number=n), of(expression()))) for n in range(300)]
        assert (await asked.identify(command(BOB, "bob"), of(expression()))).username == "bob"
        refused = [e for e in await asyncio.gather(*flood, return_exceptions=True) if isinstance(e, Refused)]
        assert len(refused) == 300 - SHARE - MOST_WAITING
        assert all("no more may" in e.refusal.reason_for_admin and not e.refusal.ends_right for e in refused)

    run(story)


def test_programs_that_take_long_hold_up_nobody_who_needs_none(program: Callable[..., Path], public: Path) -> None:
    waits = program(f"while [ ! -e {public}/go ]; do sleep 0.05; done; {says('alice')}")

    async def story(asked: Identification) -> None:
        await asked.start()
        slow = [asyncio.ensure_future(asked.identify(command(), of(external(waits)))) for _ in range(100)]
        await aiountil(lambda: len(client(asked)._owed) == 100, "all of them to want their program")
        assert (await asked.identify(command(BOB, "bob"), of(expression()))).username == "bob"
        assert not any(each.done() for each in slow)
        (public / "go").touch()
        assert {each.username for each in await asyncio.gather(*slow)} == {"alice"}

    run(story)


# Its life


def test_it_is_its_own_account_and_has_no_rights_no_network_and_no_children() -> None:
    async def story(asked: Identification) -> None:
        await asked.start()
        pid = client(asked).process.pid
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert status["Uid"].split() == [str(account().uid)] * 4
        assert status["Groups"].split() == [str(account().gid)]
        assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[2:4] for line in limits.splitlines() if line.startswith("Max processes")] == [["0", "0"]]
        links = [os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]
        assert not [link for link in links if link.startswith("/") and not link.startswith(("/dev/", "/tmp", "/proc"))]

    run(story)


def test_a_program_of_its_uid_cannot_look_into_it(program: Callable[..., Path], public: Path) -> None:
    """It can kill it, which costs whoever asks then a second question."""
    seen = public / "seen"
    seen.touch()
    seen.chmod(0o666)

    async def story(asked: Identification) -> None:
        await asked.start()
        pid = client(asked).process.pid
        look = program(f"head -c 1 /proc/{pid}/mem 2>&1 | cat >> {seen}; kill -9 {pid}\n{says('alice')}")
        assert (await asked.identify(command(), of(external(look)))).username == "alice"
        assert client(asked).process.pid != pid
        assert "ermission denied" in seen.read_text()

    run(story)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_dies_or_hangs_is_replaced_and_what_it_owed_is_asked_once_more(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(asked: Identification) -> None:
        for _ in range(2 if number == signal.SIGKILL else 1):
            await asked.identify(command(), of(expression()))
            before = client(asked).process
            os.kill(before.pid, signal.SIGSTOP)
            with monkeypatch.context() as patch:
                patch.setattr(mapper_client, "ANSWER_LIMIT", 4.0 if number == signal.SIGSTOP else 120.0)
                owed = [asyncio.ensure_future(asked.identify(command(number=n), of(expression()))) for n in range(40)]
                await aiountil(lambda: bool(client(asked)._owed), "the questions to be asked")
                os.kill(before.pid, number)
                await aiountil(lambda gone=before: client(asked).process is not gone, "another")  # type: ignore[misc]
            assert {each.username for each in await asyncio.gather(*owed)} == {"alice"}
            await aiountil(before.ended.done, "the end of the one before")

    run(story)


def test_one_that_dies_while_a_program_runs_is_asked_again(program: Callable[..., Path], public: Path) -> None:
    waits = program(f"echo >> {public}/begun; while [ ! -e {public}/go ]; do sleep 0.05; done; {says('alice')}")
    public.chmod(0o777)
    (public / "begun").touch()
    (public / "begun").chmod(0o666)
    public.chmod(0o755)

    async def story(asked: Identification) -> None:
        waiting = asyncio.ensure_future(asked.identify(command(), of(external(waits))))
        await aiountil(lambda: (public / "begun").read_text() == "\n", "the program")
        os.kill(client(asked).process.pid, signal.SIGKILL)
        (public / "go").touch()
        assert (await waiting).username == "alice"

    run(story)


def test_who_is_not_waited_for_any_more_leaves_nothing(program: Callable[..., Path], public: Path) -> None:
    waits = program(f"while [ ! -e {public}/go ]; do sleep 0.05; done; {says('alice')}")

    async def story(asked: Identification) -> None:
        waiting = [asyncio.ensure_future(asked.identify(command(number=n), of(external(waits)))) for n in range(10)]
        more = [asyncio.ensure_future(asked.identify(command(number=n), of(expression()))) for n in range(40)]
        await aiountil(lambda: len(client(asked)._owed) >= 10 if asked._helper.current else False, "their questions")
        for each in [*waiting, *more]:
            each.cancel()
        await asyncio.gather(*waiting, *more, return_exceptions=True)
        await aiountil(lambda: client(asked)._owed == {}, "all to be answered")
        assert client(asked).lost is None
        assert (await asked.identify(command(), of(expression()))).username == "alice"

    run(story)


def test_one_that_cannot_be_started_is_a_temporary_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object) -> None:
        raise HelperUnavailable("no memory")

    async def story(asked: Identification) -> None:
        monkeypatch.setattr(mapper_client.helper, "start", start)
        told = await refusal(asked.identify(command(), of(expression())))
        assert not told.ends_right and "no memory" in told.reason_for_admin
        with pytest.raises(HelperUnavailable):
            await asked.start()

    run(story)


def test_after_the_end_everybody_is_refused_for_now() -> None:
    async def story(asked: Identification) -> None:
        await asked.start()
        process = client(asked).process
        waiting = [asyncio.ensure_future(asked.identify(command(number=n), of(expression()))) for n in range(50)]
        await asyncio.sleep(0)
        await asked.stop()
        assert process.ended.done()
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, MappedIdentity) or (isinstance(each, Refused) and not each.refusal.ends_right)
        assert "being stopped" in (await refusal(asked.identify(command(), of(expression())))).reason_for_admin

    run(story)


# One that was taken over.


class Process:
    """Stands for the process of a mapper that is played here."""

    pid = 1

    def kill(self) -> None:
        pass

    async def end(self) -> None:
        pass


class Played:
    """Plays mappers. theirs: the sockets of all that were started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.theirs: list[socket.socket] = []
        monkeypatch.setattr(mapper_client.helper, "start", self.start)

    async def start(self, _module: str, _account: object, connection: socket.socket) -> Process:
        self.theirs.append(connection.dup())
        self.theirs[-1].setblocking(False)
        self.send(FromMapper.READY, 0, b"{}")
        return Process()

    def send(self, kind: int, number: int, body: bytes, *files: bytes) -> bool:
        """Whether anybody hears it."""
        descriptors = [sealed("x", file) for file in files]
        try:
            socket.send_fds(self.theirs[-1], [HEADER.pack(kind, number) + body], descriptors)
        except OSError:
            return False
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def hear(self) -> list[tuple[int, int]]:
        """The kinds and numbers of what has been said."""
        heard = []
        try:
            while (message := socket.recv_fds(self.theirs[-1], 8192, 8))[0]:
                for descriptor in message[1]:
                    os.close(descriptor)
                heard.append(HEADER.unpack_from(message[0]))
        except OSError:
            pass
        return heard

    def close(self) -> None:
        for each in self.theirs:
            each.close()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    made = Played(monkeypatch)
    yield made
    made.close()


THREE = MappingDocuments(PATH, "[]", "digest", (), tuple(MappingProgram((f"/bin/{n}",)) for n in range(3)))


def mapped_file(**changes: object) -> bytes:
    good: dict[str, object] = {
        "username": "alice",
        "identity": ALICE,
        "rule": "r",
        "candidates": [[{ALICE: ["alice"]}]],
    }
    return json.dumps({**good, **changes}).encode()


class Runs:
    """Has each program that was run."""

    def __init__(self) -> None:
        self.programs: list[MappingProgram] = []

    async def ask(self, program: MappingProgram, endpoint_id: str, question: bytes) -> bytes:
        assert endpoint_id == MANAGER
        self.programs.append(program)
        await asyncio.sleep(0)
        if len(self.programs) % 3 == 0:
            raise ProgramFailed("it failed")
        return question[:1000]


async def say(played: Played, asked: Identification, *messages: tuple[int, bytes, list[bytes]]) -> Any:
    """What a request comes to when each mapper says these, of its first request."""
    work = asyncio.ensure_future(asked.identify(command(), THREE))
    answered = 0
    while not work.done():
        if played.theirs and len(played.theirs) > answered:
            number = next((n for kind, n in played.hear() if kind == ToMapper.MAP), None)
            if number is not None:
                answered += 1
                for kind, body, files in messages:
                    played.send(kind, number, body, *files)
        await asyncio.sleep(0)
    return await asyncio.gather(work, return_exceptions=True)


GOOD = mapped_file()
RUN = FromMapper.RUN


@pytest.mark.parametrize(
    "message",
    [
        *[(FromMapper.MAPPED, b"{}", [mapped_file(username=n)]) for n in ("root", "", "../x", "a b", "A", 5, None)],
        *[(FromMapper.BANNED, b'{"banned": %s}' % odd, []) for odd in (b"0", b"-1", b"true", b'"alice"', b"null")],
        (FromMapper.MAPPED, b"{}", [mapped_file(identity="alice")]),
        (FromMapper.MAPPED, b"{}", [mapped_file(rule=5)]),
        *[(FromMapper.MAPPED, b"{}", [mapped_file(candidates=odd)]) for odd in (5, [5], [[5]], [[{"x": []}]])],
        (FromMapper.MAPPED, b"{}", [mapped_file(candidates=[[{ALICE: ["root"]}]])]),
        (FromMapper.MAPPED, b"{}", [mapped_file(more=1)]),
        (FromMapper.MAPPED, b"{}", [b"[" * 200_000]),
        (FromMapper.MAPPED, b"{}", [b" " * 300_000 + GOOD]),
        (FromMapper.MAPPED, b"{}", []),
        (FromMapper.MAPPED, b"{}", [GOOD, GOOD]),
        (FromMapper.NOBODY, b"{}", []),
        (FromMapper.NOBODY, b'{"why": 5}', []),
        (FromMapper.FAILED, b'{"why": []}', []),
        (FromMapper.READY, b"{}", []),
        *[
            (RUN, json.dumps({"program": number}).encode(), [b"{}"])
            for number in (3, -1, 10**30, "0", "/bin/sh", True, None, [0], 0.0)
        ],
        (RUN, b"{}", [b"{}"]),
        *[(RUN, b'{"program": 0}', [b" " * size]) for size in (2**11, 2**21 + 1)],
        (0, b"{}", []),
        (65535, b"[]", []),
    ],
)
def test_what_makes_no_sense_costs_the_mapper_its_life_and_starts_nothing(
    played: Played, message: tuple[int, bytes, list[bytes]]
) -> None:
    runs = Runs()

    async def whole() -> None:
        asked = Identification(account(), MANAGER, runs.ask)
        (end,) = await say(played, asked, message)
        assert isinstance(end, Refused) and not end.refusal.ends_right
        assert "lost twice" in end.refusal.reason_for_admin
        assert len(played.theirs) == 2 and runs.programs == []
        await asked.stop()

    asyncio.run(whole())


def test_no_more_runs_than_there_are_programs_and_none_while_one_runs(played: Played) -> None:
    runs = Runs()
    wants = (RUN, b'{"program": 1}', [b"{}"])

    async def whole() -> None:
        asked = Identification(account(), MANAGER, runs.ask)
        (end,) = await say(played, asked, wants, wants)
        assert isinstance(end, Refused) and not end.refusal.ends_right
        assert set(runs.programs) <= {THREE.programs[1]} and len(runs.programs) <= 2
        await asked.stop()

    asyncio.run(whole())


def test_what_it_says_is_shown_without_what_steers_a_terminal(played: Played) -> None:
    async def whole() -> None:
        asked = Identification(account(), MANAGER, Runs().ask)
        (end,) = await say(played, asked, (FromMapper.NOBODY, json.dumps({"why": "a\n\x1b[31m"}).encode(), []))
        assert isinstance(end, Refused) and "a\\n\\x1b[31m" in end.refusal.reason_for_admin
        (end,) = await say(played, asked, (FromMapper.MAPPED, b"{}", [mapped_file(rule="\n" * 50_000)]))
        assert isinstance(end, MappedIdentity) and end.rule.isprintable() and len(end.rule) <= 2000
        await asked.stop()

    asyncio.run(whole())


def test_one_that_says_what_it_likes(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """At random, with silence and floods: everybody has an answer, in the right form, and nothing else is run."""
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    monkeypatch.setattr(mapper_client, "ANSWER_LIMIT", 0.3)
    runs = Runs()
    odd: list[Any] = [None, 5, -1, 3, 10**30, "", "x" * 500, [], {}, True, "a\nb", "root", 1.5]

    def body() -> bytes:
        if draw.random() < 0.1:
            return draw.choice([b"", b"[]", b"\xff", b"[" * 4000, b"x" * 5000])
        program = draw.choice([0, 1, 2, *odd])
        why = draw.choice(["because", *odd])
        return json.dumps(draw.choice([{"program": program}, {"why": why}, {}])).encode()

    def file() -> bytes:
        if draw.random() < 0.3:
            return draw.choice([b"", b"[]", b"\xff", b"[" * 100_000])
        return mapped_file(
            **({} if draw.random() < 0.5 else {draw.choice(["username", "rule", "x"]): draw.choice(odd)})
        )

    ends: list[Any] = []

    async def requests(asked: Identification) -> None:
        for n in range(40):
            who = command(f"{draw.randrange(16**8):08x}-0001-4000-8000-00000000000a", number=n)
            identify = draw.choice([asked.identify, asked.identify, asked.identify_without_programs])
            try:
                ends.append(await asyncio.wait_for(identify(who, THREE), 0.2 if draw.random() < 0.1 else 60))
            except (Refused, asyncio.TimeoutError) as e:
                ends.append(e)

    def message(owed: list[int]) -> tuple[int, int, bytes, list[bytes]]:
        """What a mapper would say, or nearly so, or anything."""
        kind, number = draw.choice([RUN, RUN, *FromMapper]), draw.choice(owed) if owed else 0
        if draw.random() < 0.7:
            said = json.dumps({"program": draw.randrange(3), "why": "because"}).encode()
            return kind, number, said, {RUN: [b"{}"], FromMapper.MAPPED: [mapped_file()]}.get(kind, [])
        kind = draw.choice([kind, kind, 0, 1, 65535])
        number = number if draw.random() < 0.8 else draw.randrange(2**32)
        return kind, number, body(), [file()] if kind in (RUN, FromMapper.MAPPED) or draw.random() < 0.1 else []

    async def play() -> None:
        owed: list[int] = []
        of = 0
        while True:
            if of != len(played.theirs):
                of, owed = len(played.theirs), []
            owed += [number for kind, number in played.hear() if kind != ToMapper.DOCUMENTS]
            flood = 300 if draw.random() < 0.005 else 1
            for _ in range(flood if owed else 0):
                kind, number, said, files = message(owed)
                if number in owed:
                    owed.remove(number)
                played.send(kind, number, said, *files)
            await asyncio.sleep(0.1 if draw.random() < 0.005 else 0)

    async def whole() -> None:
        asked = Identification(account(), MANAGER, runs.ask)
        await asked.start()
        before = len(os.listdir("/proc/self/fd"))
        playing = asyncio.ensure_future(play())
        await asyncio.wait_for(asyncio.gather(*(requests(asked) for _ in range(30))), 600)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await asked.stop()
        assert len(os.listdir("/proc/self/fd")) - len(played.theirs) <= before, seed

    asyncio.run(whole())
    assert len(ends) == 30 * 40, seed
    assert set(runs.programs) <= set(THREE.programs), seed
    assert set(runs.programs) == set(THREE.programs) and len(played.theirs) > 50, seed
    assert {MappedIdentity, Refused} <= set(map(type, ends)), seed
    for end in ends:
        if isinstance(end, MappedIdentity):
            assert problem(end.username) is None and end.rule.isprintable(), seed


def test_one_that_floods_or_is_silent_holds_up_nobody(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper_client, "ANSWER_LIMIT", 0.5)

    async def whole() -> None:
        asked = Identification(account(), MANAGER, Runs().ask)
        await asked.start()
        waiting = asyncio.ensure_future(asked.identify(command(), THREE))
        others = 0
        while not waiting.done():
            played.send(FromMapper.RUN, 1, b"{}", b"")
            others += 1
            await asyncio.sleep(0)
        assert not (await refusal(waiting)).ends_right
        assert others > 2
        silent = await refusal(asked.identify(command(), THREE))
        assert "lost twice" in silent.reason_for_admin and "did not answer" in silent.reason_for_admin
        await asked.stop()

    asyncio.run(whole())
