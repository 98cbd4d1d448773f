"""The table under random events, with real processes, beside a model that knows only what matters to people.

Managers follow each other on one run folder; user endpoints are `sleep`. Time comes when the model says so: a grace
period is either over at once, or lasts longer than the test.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lab.waiting import aiountil
from mep.monitor.endpoints import record
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.table import EndpointTable
from mep.profile.config import ManagerConfig
from mep.request.account import Account
from mep.request.start_endpoint import StartEndpoint
from tests.mep.credentials import StubSealer, plain
from tests.mep.monitor.endpoints.neighbours import Earlier, Heard, NoScopes

NAMES = ("a", "b")
ALICE = Account("alice", 54321, 54321, "Alice", "/home/alice", "/bin/bash", (54321, 100))
BEGINS = (State.STARTING, State.RUNNING)
LONG = 3600.0


def command(name: str, number: int) -> StartEndpoint:
    return StartEndpoint(
        f"r{number}", name, "uuid", "{}", "{}", plain({"number": number}), "somebody", "alice@example.org", []
    )


@dataclass
class Life:
    """What is known of one user endpoint. begun: it has checked in. closed: it takes no more tasks."""

    pid: int
    begun: bool
    runs: bool = True
    asked: bool = False
    closed: bool = False
    stopped: bool = False


class Managers(RuleBasedStateMachine):
    """Rules are what a manager lives through."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.run_directory = Path(tempfile.mkdtemp(prefix="mep-table-"))
        self.earlier = Earlier(self.run_directory, ALICE)
        self.heard = Heard()
        self.grace = LONG
        self.lives: dict[str, Life] = {}
        self.over: list[Life] = []
        self.answered: set[int] = set()
        """The pids whose end was answered by a revival or a notice, as it should be."""
        self.number = 0
        self.in_loop(self.succeed)
        self.descriptors = len(os.listdir("/proc/self/fd"))

    @precondition(lambda self: len(self.lives) < len(NAMES))
    @rule(name=st.sampled_from(NAMES), begin=st.sampled_from(BEGINS))
    def a_successor_finds_a_new_one(self, name: str, begin: State) -> None:
        """As if the manager before had just started it."""
        if name in self.lives:
            return
        self.in_loop(self.table.release)
        pid = self.earlier.start(self.command(name), begin)
        self.lives[name] = Life(pid, begun=begin is State.RUNNING)
        self.in_loop(self.succeed)

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 1), word=st.sampled_from([b"ready", b"working", b"stopping", b"stopped", b"?"]))
    def it_speaks(self, which: int, word: bytes) -> None:
        name = self.running()[which % len(self.running())]
        life, endpoint = self.lives[name], self.table.get(name)
        assert endpoint is not None
        if endpoint.pipe is None:
            return  # nobody listens any more
        repeated = word in endpoint.said or word == b"?"

        async def speak() -> None:
            self.earlier.say(name, word)
            await aiountil(lambda: endpoint.pipe is None if repeated else word in endpoint.said, f"{word!r}")

        self.in_loop(speak)
        if not repeated:
            life.begun |= word == b"ready"
            life.closed |= word == b"stopping" and life.begun

    @rule(name=st.sampled_from(NAMES), over=st.booleans())
    def a_command_comes(self, name: str, over: bool) -> None:
        """over: its grace period is."""
        life = self.lives.get(name)
        self.grace = 0.0 if over else LONG

        async def ask() -> None:
            self.table.command_came(name)
            endpoint = self.table.get(name)
            assert (endpoint is not None) == (life is not None and life.runs)
            if endpoint is not None:
                await self.table.refresh(self.command(name))
                await settle()

        self.in_loop(ask)
        self.grace = LONG
        if life is not None and life.runs:
            life.asked = not over or life.closed
        elif life is not None:
            self.gone(name)  # missed, and its user is about to get a new one

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 1), clean=st.booleans())
    def it_ends(self, which: int, clean: bool) -> None:
        name = self.running()[which % len(self.running())]
        life = self.lives[name]
        endpoint = self.table.get(name)
        assert endpoint is not None
        clean = clean and endpoint.pipe is not None and b"stopped" not in endpoint.said

        async def end() -> None:
            if clean:
                self.earlier.say(name, b"stopped")
            clean_end = clean or b"stopped" in endpoint.said
            self.earlier.kill(life.pid)
            await aiountil(lambda: self.table.get(name) is None, "its end")
            if life.asked or (not clean_end and not life.stopped) or (not life.begun and not life.stopped):
                self.answered.add(life.pid)

        self.in_loop(end)
        self.gone(name)

    @rule(killed=st.sets(st.sampled_from(NAMES)), over=st.booleans())
    def the_manager_is_restarted(self, killed: set[str], over: bool) -> None:
        """Some are killed while none runs. over: nobody comes for them in time."""
        self.in_loop(self.table.release)
        for name in killed & set(self.lives):
            life = self.lives[name]
            if life.runs:
                self.earlier.kill(life.pid)
                life.runs = False
        self.grace = 0.0 if over else LONG
        self.in_loop(self.succeed)
        self.grace = LONG
        for name, life in list(self.lives.items()):
            if not life.runs and (life.asked or life.stopped or over):
                if life.asked or not life.stopped:
                    self.answered.add(life.pid)
                self.gone(name)

    @precondition(lambda self: len(self.lives) == len(NAMES))  # not too often
    @rule()
    def the_manager_stops_them(self) -> None:
        async def stop() -> None:
            self.table.stop()
            await aiountil(lambda: list(self.table) == [], "their ends")

        for name, life in list(self.lives.items()):
            if life.asked or not life.runs:
                self.answered.add(life.pid)
            life.stopped = True
            self.gone(name)
        self.in_loop(stop)

    def running(self) -> list[str]:
        return [name for name, life in self.lives.items() if life.runs]

    def succeed(self) -> None:
        self.table = EndpointTable(
            self.run_directory,
            lambda: ManagerConfig(mu_child_ep_grace_period_s=self.grace),
            NoScopes(),  # type: ignore[arg-type]
            self.heard,
            StubSealer(),
            self.heard.counts.append,
        )
        self.table.adopt()

    def command(self, name: str) -> StartEndpoint:
        self.number += 1
        return command(name, self.number)

    def gone(self, name: str) -> None:
        self.over.append(self.lives.pop(name))

    def in_loop(self, work: object) -> None:
        async def run() -> None:
            made = work()  # type: ignore[operator]
            if made is not None:
                await made
            await settle()

        self.loop.run_until_complete(run())

    @invariant()
    def the_table_has_who_runs(self) -> None:
        running = {life.pid for life in self.lives.values() if life.runs}
        assert {endpoint.pid for endpoint in self.table} == running
        assert self.heard.counts[-1] == len(running)

    @invariant()
    def folders_are_of_who_runs_or_was_missed(self) -> None:
        assert {folder.name for folder in record.folders(self.run_directory)} == set(self.lives)

    @invariant()
    def every_end_was_reported_once(self) -> None:
        ended = [life.pid for life in self.over] + [life.pid for life in self.lives.values() if not life.runs]
        assert sorted(pid for pid, _ in self.heard.exits) == sorted(ended)

    @invariant()
    def everybody_who_waits_was_answered_once(self) -> None:
        answers = [pid for pid, _ in self.heard.deaths] + [pid for pid, _ in self.heard.revived]
        assert sorted(answers) == sorted(self.answered)

    def teardown(self) -> None:
        try:
            self.the_manager_stops_them()
            self.folders_are_of_who_runs_or_was_missed()
            self.every_end_was_reported_once()
            self.everybody_who_waits_was_answered_once()
        finally:
            self.in_loop(self.table.release)
            self.earlier.close()
            self.heard.revived.clear()  # commands have credentials, which are open files
            open_now = len(os.listdir("/proc/self/fd"))
            self.loop.close()
            shutil.rmtree(self.run_directory)
        assert open_now == self.descriptors, "something stays open"


async def settle() -> None:
    """Lets timers that are due, and tasks that can go on, do so."""
    for _ in range(5):
        await asyncio.sleep(0)


TestManagers = Managers.TestCase
TestManagers.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
