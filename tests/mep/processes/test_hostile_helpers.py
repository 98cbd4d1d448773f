"""Helpers that say anything: a fuzzer plays each of them against the monitor's half.

Held: a message that the table does not allow ends that helper, and nothing in it is ever acted on; whoever asks is
served by one of those after it; the event loop goes on; no descriptor stays open. `MEP_FUZZ=100000` plays so many
messages for each helper.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lab.waiting import aiountil
from mep.monitor.stages import name_service, renderer
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.renderer import Renderer
from mep.processes import answering, helper, name_service_protocol, render_protocol
from mep.processes.message import BODY, HEADER, START, Dialogue, receive
from mep.processes.name_service_protocol import GROUP_IDS, FromNameService
from mep.processes.render_protocol import FILES_TO_RENDERER, MAX_REASON, FromRenderer
from mep.processes.sealed_file import sealed
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint

MESSAGES = int(os.environ.get("MEP_FUZZ", "4000"))
A_TIME = 30
"""About as many are played in one example."""
FLOOD = 150
"""Messages at a time; sometimes."""
NOBODY = Account("nobody", 65534, 65534, "", "/", "", (65534,))
GOOD, EVIL = 5, 666
"""What is in messages that may come, and in all those that may not."""


class Said(NamedTuple):
    """A message before it is spoiled: to what question, its kind, number and body, and what is in its file, if any."""

    question: int
    kind: int
    number: int
    body: dict[str, Any]
    file: bytes | None


Say = Callable[[int, int, Any, int, int], Said]
"""Makes an answer that may be given: question, its number and body; which kind of answer; the mark in it."""


def of_name_service(question: int, number: int, asked: Any, which: int, mark: int) -> Said:
    kind = pick(name_service_protocol.DIALOGUE, question, which)
    text = "EVIL" if mark == EVIL else "good"
    if kind == FromNameService.FOUND:
        texts = {"name": asked["name"], "gecos": text, "home": "/" + text, "shell": "/bin/sh", "shell_fault": ""}
        groups = array.array(GROUP_IDS, [mark]).tobytes()
        return Said(question, kind, number, {"uid": mark, "gid": mark, **texts}, groups)
    bodies: dict[int, Any] = {FromNameService.GROUP_ID: {"id": mark}, FromNameService.FAILED: {"reason": text}}
    return Said(question, kind, number, bodies.get(kind, {}), None)


def of_render_server(question: int, number: int, _asked: Any, which: int, mark: int) -> Said:
    kind = pick(render_protocol.DIALOGUE, question, which)
    text = b"EVIL" if mark == EVIL else b"good"
    files = {FromRenderer.RENDERED: b"engine: " + text, FromRenderer.REFUSED: b"options\0" + text + b"\0" + text}
    body = {"code": mark % 256, "late": False} if kind == FromRenderer.ENDED else {}
    return Said(question, kind, number, body, files.get(FromRenderer(kind)))


def pick(dialogue: Dialogue, question: int, which: int) -> int:
    kinds = sorted(dialogue.answers[question])
    return kinds[which % len(kinds)]


# --- ways to spoil a message --------------------------------------------------------------------------------------

WRONG_VALUES = [None, [], {}, 1.5, ["x"], 2**32 - 1, -(2**70)]
"""No field may have any of these."""


def unsealed(_most: int) -> int:
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"EVIL")
    return descriptor


def half_sealed(_most: int) -> int:
    descriptor = unsealed(0)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


def too_large(most: int) -> int:
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, most + 1)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return descriptor


def pipe(_most: int) -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def plain(_most: int) -> int:
    descriptor, path = tempfile.mkstemp()
    Path(path).unlink()
    return descriptor


def folder(_most: int) -> int:
    return os.open("/", os.O_RDONLY)


FILES: dict[str, Callable[[int], int]] = {
    made.__name__: made for made in (unsealed, half_sealed, too_large, pipe, plain, folder)
}
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:3],
    "empty": lambda data: data[: HEADER.size],
    "longer": lambda data: data + b" " * BODY,
    "no object": lambda data: data[: HEADER.size] + b"[]",
    "no text": lambda data: data[: HEADER.size] + b"\xff",
    "deep": lambda data: data[: HEADER.size] + b"[" * BODY,
    "half": lambda data: data[:-1],
    "two in one": lambda data: data + data,
}
NUMBERS: dict[str, Callable[[int], int]] = {
    "of nobody": lambda number: number + 1000,
    "of the start": lambda _number: 0,
    "the last": lambda _number: 2**32 - 1,
}
KINDS = ["other kind", "unknown kind"]
BODIES = ["field more", "field less", "value", "NUL"]
COUNTS = ["file less", "file more"]
SPOILED = [*FILES, *FORMS, *NUMBERS, *KINDS, *BODIES, *COUNTS]
"""Each of these must end the helper."""
MOVES = [*SPOILED, *["answer"] * 9, "twice", "flood", "nothing"]


def spoiled(said: Said, how: str, value: Any, dialogue: Dialogue) -> tuple[bytes, list[int]]:
    """The bytes and descriptors of the message, spoiled in one way; in none when that is empty."""
    kind, number, body = said.kind, said.number, dict(said.body)
    if how == "other kind":
        kind = min(
            {each for kinds in dialogue.answers.values() for each in kinds} - set(dialogue.answers[said.question])
        )
    elif how == "unknown kind":
        kind = 9999
    elif how == "NUL" and "home" in body:
        body["home"] += "\0"
    elif how == "field less" and body:
        body.popitem()
    elif how == "value" and body:
        body[sorted(body)[number % len(body)]] = value
    elif how in BODIES:
        body["more"] = value
    number = NUMBERS[how](number) if how in NUMBERS else number
    data = HEADER.pack(kind, number) + json.dumps(body).encode()
    data = FORMS[how](data) if how in FORMS else data
    files = [] if said.file is None else [sealed("file", said.file)]
    if how in FILES:
        spoils = FILES[how](dialogue.files.get(said.kind, [9])[0])
        for descriptor in files:
            os.close(descriptor)
        files = [spoils]
    elif how == "file less" and files:
        os.close(files.pop())
    elif how in COUNTS:
        files.append(sealed("more", b"EVIL"))
    return data, files


# --- the players --------------------------------------------------------------------------------------------------


async def soon(condition: Callable[[], object], what: str) -> None:
    """As `aiountil`, but nearly always at once."""
    for _ in range(50):
        if condition():
            return
        await asyncio.sleep(0)
    await aiountil(condition, what)


class Player:
    """One helper, until it has made its moves or has been ended. Stands for its `SupervisedProcess`, too."""

    pid = 0

    def __init__(self, connection: socket.socket, dialogue: Dialogue, say: Say) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._dialogue = dialogue
        self._say = say
        self._files = FILES_TO_RENDERER if dialogue is render_protocol.DIALOGUE else {}
        self._killed = False
        self._asked: list[tuple[int, int, Any]] = []

    def kill(self) -> None:
        self._killed = True
        self._connection.close()

    async def end(self) -> None:
        self.kill()

    async def honest(self) -> None:
        self._answer(START, 0, {}, 0)
        while await self._is_asked():
            self._answer(*self._asked.pop(0), 0)

    async def hostile(self, beginning: str, moves: Sequence[tuple[str, int, Any]]) -> None:
        if beginning == "silence":
            await self._must_end(beginning)
            return
        if beginning != "ready":
            self._spoil(self._say(START, 0, {}, 0, EVIL), beginning, None)
            await self._must_end(beginning)
            return
        self._answer(START, 0, {}, 0)
        for move, which, value in moves:
            if not await self._is_asked():
                return
            question, number, asked = self._asked[0]
            evil = self._say(question, number, asked, which, EVIL)
            if move in ("answer", "twice"):
                self._answer(*self._asked.pop(0), which)
            if move == "twice":
                self._spoil(evil, "", value)
            elif move == "flood":
                for _ in range(FLOOD):
                    self._spoil(evil, "of nobody", value)
            elif move in SPOILED:
                self._spoil(evil, move, value)
            if move not in ("answer", "nothing"):
                await self._must_end(move)
                return
        self._connection.close()

    def _answer(self, question: int, number: int, asked: Any, which: int) -> None:
        self._spoil(self._say(question, number, asked, which, GOOD), "", None)

    def _spoil(self, said: Said, how: str, value: Any) -> None:
        data, files = spoiled(said, how, value, self._dialogue)
        with contextlib.suppress(OSError):  # it may have been ended meanwhile
            socket.send_fds(self._connection, [data], files)
        for descriptor in files:
            os.close(descriptor)

    async def _is_asked(self) -> bool:
        """Waits for something that it owes an answer. False when it has been ended."""

        def heard() -> bool:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while not self._killed and (came := receive(self._connection, self._files)) is not None:
                    self._asked.append((came[0], came[1], came[2]))
            return bool(self._asked) or self._killed

        await soon(heard, "a question")
        return not self._killed

    async def _must_end(self, move: str) -> None:
        await soon(lambda: self._killed, f"its end after {move!r}")


class Stage:
    """Plays one helper after the other in the place of `helper.start`; when all lives are over, honest ones."""

    def __init__(self, dialogue: Dialogue, say: Say, lives: Sequence[Any]) -> None:
        self._dialogue = dialogue
        self._say = say
        self._lives = list(lives)
        self._plays: list[asyncio.Task[None]] = []
        self._players: list[Player] = []
        self.honest = False

    async def start(self, _module: str, _account: Account, theirs: socket.socket) -> Player:
        player = Player(theirs.dup(), self._dialogue, self._say)
        self.honest = not self._lives
        play = player.honest() if self.honest else player.hostile(*self._lives.pop(0))
        self._players.append(player)
        self._plays.append(asyncio.get_running_loop().create_task(play))
        self._plays[-1].add_done_callback(lambda _: player.kill())
        return player

    async def over(self) -> None:
        """Ends all players. Raises what one of them has found to be wrong."""
        for player in self._players:
            player.kill()
        await asyncio.gather(*self._plays)


MOVE = st.tuples(st.sampled_from(MOVES), st.integers(0, 5), st.sampled_from(WRONG_VALUES))
BEGINNING = st.sampled_from([*["ready"] * 9, "of nobody", "unknown kind", "field more", "file more", "cut"])
LIVES = st.lists(st.tuples(BEGINNING, st.lists(MOVE, min_size=3, max_size=12)), min_size=5, max_size=9)
FUZZ = settings(
    max_examples=max(1, MESSAGES // A_TIME),
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


def of_its_form(outcome: object, granted: type | tuple[type, ...]) -> bool:
    """Whether that may come out, and nothing of what may not be said is in it."""
    if isinstance(outcome, Refused):
        texts = outcome.refusal.reason_for_admin, outcome.refusal.reason_for_user
        return all(text.isprintable() and "EVIL" not in text and len(text) < 2 * MAX_REASON for text in texts)
    return isinstance(outcome, granted) and "EVIL" not in repr(outcome) and str(EVIL) not in repr(outcome)


@given(lives=LIVES)
@FUZZ
def test_a_hostile_name_service_helper(monkeypatch: pytest.MonkeyPatch, lives: Sequence[Any]) -> None:
    async def play() -> None:
        stage, names = Stage(name_service_protocol.DIALOGUE, of_name_service, lives), NameService(NOBODY)
        monkeypatch.setattr(helper, "start", stage.start)
        while not stage.honest:
            asked = names.find("alice"), names.find("bob"), names.group_ids(["staff", "games"])
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert of_its_form(outcome, (Account, dict)), outcome
                if isinstance(outcome, Account):
                    assert (outcome.uid, outcome.groups) == (GOOD, (GOOD,))
        assert (await names.find("alice")).name == "alice"
        assert await names.group_ids(["staff"]) == {"staff": GOOD}
        await names.stop()
        await stage.over()

    before = descriptors()
    asyncio.run(play())
    assert descriptors() == before


@given(lives=LIVES)
@FUZZ
def test_a_hostile_render_server(
    monkeypatch: pytest.MonkeyPatch,
    profile: Profile,
    command: StartEndpoint,
    identity_of_alice: MappedIdentity,
    alice: Account,
    lives: Sequence[Any],
) -> None:
    async def play() -> None:
        stage, server = Stage(render_protocol.DIALOGUE, of_render_server, lives), Renderer(NOBODY)
        monkeypatch.setattr(helper, "start", stage.start)

        async def ask(uid: int) -> str:
            account = dataclasses.replace(alice, uid=uid)
            return (await server.render(profile, command, identity_of_alice, account)).read()

        while not stage.honest:
            for outcome in await asyncio.gather(*map(ask, range(1000, 1006)), return_exceptions=True):
                assert of_its_form(outcome, str), outcome
                assert isinstance(outcome, Refused) or outcome == "engine: good"
        assert await ask(1000) == "engine: good"
        await server.stop()
        await stage.over()

    before = descriptors()
    asyncio.run(play())
    assert descriptors() == before


SILENT = [("ready", [("silence", 0, None)]), ("silence", []), ("ready", [("answer", 0, None), ("silence", 0, None)])]


def test_a_silent_name_service_helper_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        stage, names = Stage(name_service_protocol.DIALOGUE, of_name_service, SILENT), NameService(NOBODY)
        monkeypatch.setattr(helper, "start", stage.start)
        monkeypatch.setattr(answering, "START_LIMIT", 0.2)
        monkeypatch.setattr(name_service, "TIMEOUT", 0.4)
        while not stage.honest:
            await asyncio.gather(names.find("alice"), names.group_ids(["staff"]), return_exceptions=True)
        monkeypatch.undo()
        monkeypatch.setattr(helper, "start", stage.start)
        assert (await names.find("alice")).uid == GOOD
        await names.stop()
        await stage.over()

    before = descriptors()
    asyncio.run(play())
    assert descriptors() == before


def test_a_silent_render_server_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
    profile: Profile,
    command: StartEndpoint,
    identity_of_alice: MappedIdentity,
    alice: Account,
) -> None:
    async def play() -> None:
        stage, server = Stage(render_protocol.DIALOGUE, of_render_server, SILENT), Renderer(NOBODY)
        monkeypatch.setattr(helper, "start", stage.start)
        monkeypatch.setattr(answering, "START_LIMIT", 0.2)
        monkeypatch.setattr(renderer, "ANSWER_LIMIT", 0.2)
        while not stage.honest:
            asked = [
                server.render(profile, command, identity_of_alice, dataclasses.replace(alice, uid=uid))
                for uid in (1000, 1001, 1002)
            ]
            await asyncio.gather(*asked, return_exceptions=True)
        monkeypatch.undo()
        monkeypatch.setattr(helper, "start", stage.start)
        assert (await server.render(profile, command, identity_of_alice, alice)).read() == "engine: good"
        await server.stop()
        await stage.over()

    before = descriptors()
    asyncio.run(play())
    assert descriptors() == before
