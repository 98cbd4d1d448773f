"""The table of user endpoints: real processes of an earlier manager, adopted, asked, ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from lab.waiting import aiountil
from mep.monitor import shown
from mep.monitor.containment import cgroups
from mep.monitor.containment.limits_met import LimitMet, Watched
from mep.monitor.endpoints import record, table
from mep.monitor.endpoints.lifecycle import State
from mep.profile import functions
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint
from tests.mep.credentials import StubSealer, facts, in_file, inside, plain
from tests.mep.monitor.endpoints.conftest import TableMaker
from tests.mep.monitor.endpoints.neighbours import Earlier, Heard, NoScopes

LONG = 3600.0
KILLED = Refusal("orders", "killed", "killed")


@pytest.fixture
def newer(command: StartEndpoint) -> StartEndpoint:
    """A later command for the same user endpoint."""
    return dataclasses.replace(
        command, request_id="r2", credentials=plain({**inside(command.credentials), "fresh": True})
    )


def named(command: StartEndpoint, name: str) -> StartEndpoint:
    return dataclasses.replace(command, name=name)


def test_what_runs_is_adopted_and_counted(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pids = [earlier.start(named(command, name)) for name in ("a", "b", "c")]
        before = len(os.listdir("/proc/self/fd"))
        found = make_table()
        assert [endpoint.pid for endpoint in found.adopt()] == pids
        assert heard.counts == [3]
        one = found.get("b")
        assert one is not None and one.pid == pids[1]
        assert found.get("d") is None
        found.release()
        assert list(found) == []
        assert all(earlier.runs(pid) for pid in pids)
        del one  # and with it its credentials
        assert len(os.listdir("/proc/self/fd")) == before, "nothing stays open"

    asyncio.run(story())


@pytest.mark.parametrize("word", [b"stopped", None])
def test_the_end_of_an_adopted_one_is_told_by_its_last_word(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard, containment: NoScopes, word: bytes
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        found = make_table()
        found.adopt()
        if word is not None:
            earlier.say(command.name, word)
        earlier.kill(pid)
        await aiountil(lambda: heard.exits, "its end")
        ((who, report),) = heard.exits
        assert (who, report.clean) == (pid, word is not None)
        assert [died for died, _ in heard.deaths] == ([] if word else [pid])
        assert heard.revived == []
        assert heard.counts == [1, 0]
        assert list(found) == [] and record.folders(earlier.run_directory) == []
        await aiountil(lambda: containment.cleared == [pid], "what it has left is ended")

    asyncio.run(story())


@pytest.mark.parametrize(("grace", "drains", "revived"), [(LONG, False, True), (0.0, False, False), (0.0, True, True)])
def test_one_that_ends_cleanly_after_a_command_is_started_again(
    make_table: TableMaker,
    earlier: Earlier,
    command: StartEndpoint,
    newer: StartEndpoint,
    heard: Heard,
    grace: float,
    drains: bool,
    revived: bool,
) -> None:
    """Unless the grace period is over; which does not matter when it took no more tasks by then."""

    async def story() -> None:
        pid = earlier.start(command)
        found = make_table(mu_child_ep_grace_period_s=grace)
        (endpoint,) = found.adopt()
        if drains:
            earlier.say(command.name, b"stopping")
            await aiountil(lambda: endpoint.state is State.DRAINING, "its word")
        assert await found.refresh(newer) is endpoint
        if not grace and not drains:
            await aiountil(lambda: endpoint.state is State.RUNNING, "the end of the grace period")
        assert in_file(endpoint.credentials) == inside(newer.credentials)
        earlier.say(command.name, b"stopped")
        earlier.kill(pid)
        await aiountil(lambda: heard.exits, "its end")
        assert [(who, facts(again)) for who, again in heard.revived] == ([(pid, facts(newer))] if revived else [])
        assert heard.deaths == []

    asyncio.run(story())


def test_when_nobody_seals_fresh_credentials_the_old_ones_stay(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, newer: StartEndpoint, sealer: StubSealer
) -> None:
    async def story() -> None:
        earlier.start(command)
        first, second = make_table(), make_table()
        (endpoint,) = first.adopt()
        sealer.away = True
        assert await first.refresh(newer) is endpoint
        assert endpoint.state is State.RUNNING_ASKED, "whoever asks gets an answer all the same"
        first.release()
        (endpoint,) = second.adopt()
        assert endpoint.command.request_id == newer.request_id
        assert inside(endpoint.command.credentials) == in_file(endpoint.credentials) == inside(command.credentials)

    asyncio.run(story())


def test_one_that_ends_while_its_credentials_are_sealed_is_not_refreshed(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, newer: StartEndpoint, sealer: StubSealer
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        found = make_table()
        found.adopt()
        sealer.waits = asyncio.Event()
        refreshing = asyncio.ensure_future(found.refresh(newer))
        earlier.kill(pid)
        await aiountil(lambda: not list(found), "its end")
        sealer.waits.set()
        assert await refreshing is None

    asyncio.run(story())


@pytest.mark.parametrize("killed_before", [False, True])
def test_a_command_that_came_before_a_kill_starts_nothing_after_it(
    make_table: TableMaker,
    earlier: Earlier,
    command: StartEndpoint,
    newer: StartEndpoint,
    sealer: StubSealer,
    killed_before: bool,
) -> None:
    """Also when the order comes while its credentials are sealed. One that came after the kill starts another one."""

    async def story() -> None:
        earlier.start(command)
        found = make_table()
        (endpoint,) = found.adopt()
        if killed_before:
            found.kill(endpoint, KILLED)
        sealer.waits = asyncio.Event()
        refreshing = asyncio.ensure_future(found.refresh(newer))
        await asyncio.sleep(0)
        if not killed_before:
            found.kill(endpoint, KILLED)
        sealer.waits.set()
        assert await refreshing is endpoint
        assert endpoint.refusal is (None if killed_before else KILLED)

    asyncio.run(story())


def ignores_sigterm(pid: int) -> bool:
    ignored = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored.split()[1], 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.parametrize("away", [False, True])
def test_one_that_has_to_end_is_told_why_before_it_is_asked_to_stop(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, sealer: StubSealer, away: bool
) -> None:
    """If that can be done: it ends in any case."""

    async def story() -> None:
        pid = earlier.start(command, program=("/bin/sh", "-c", "trap '' TERM; while :; do sleep 3600; done"))
        await aiountil(lambda: ignores_sigterm(pid), "the shell to be beyond its first command")
        found = make_table()
        (endpoint,) = found.adopt()
        sealer.waits, sealer.away = asyncio.Event(), away
        found.end(endpoint, "may not run any more")
        await asyncio.sleep(0)
        assert endpoint.state is State.RUNNING_ASKED
        sealer.waits.set()
        await aiountil(lambda: endpoint.state is State.STOPPING_ASKED, "its being asked")
        text = json.loads(Fernet(endpoint.credentials.key).decrypt(endpoint.credentials.path.read_bytes()))
        assert text.get("ending") == (None if away else "may not run any more")
        assert text["amqp_creds"] == inside(command.credentials)
        found.release()

    asyncio.run(story())


def test_a_command_is_remembered_by_the_next_manager(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, newer: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        first, second = make_table(mu_child_ep_grace_period_s=LONG), make_table()
        first.adopt()
        await first.refresh(newer)
        first.release()
        (endpoint,) = second.adopt()
        assert endpoint.state is State.RUNNING_ASKED
        earlier.say(command.name, b"stopped")
        earlier.kill(pid)
        await aiountil(lambda: heard.revived, "its revival")
        assert [(who, facts(again)) for who, again in heard.revived] == [(pid, facts(newer))]

    asyncio.run(story())


def test_one_that_does_not_check_in_is_killed(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command, State.STARTING)
        found = make_table(start_timeout=0.0)
        (endpoint,) = found.adopt()
        await asyncio.to_thread(earlier.wait, pid)
        await aiountil(lambda: heard.deaths, "its end")
        ((who, report),) = heard.deaths
        assert who == pid and report.before_check_in and report.useless
        assert endpoint.reason == "the manager killed it: it did not check in within 0 s (start_timeout)"

    asyncio.run(story())


@pytest.mark.parametrize("asked_by", ["this manager", "the one before"])
def test_one_that_ignores_that_it_shall_stop_is_killed(
    make_table: TableMaker,
    earlier: Earlier,
    command: StartEndpoint,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
    asked_by: str,
) -> None:
    async def story() -> None:
        monkeypatch.setattr(table, "STOP_TIMEOUT", 0.2)
        state = State.RUNNING if asked_by == "this manager" else State.STOPPING
        deaf = ("/bin/sh", "-c", f"trap '' TERM; touch {earlier.run_directory}/deaf; while :; do sleep 1; done")
        pid = earlier.start(command, state, program=deaf)
        await aiountil((earlier.run_directory / "deaf").exists, "it to ignore SIGTERM")
        found = make_table()
        (endpoint,) = found.adopt()
        if asked_by == "this manager":
            found.stop()
        assert await asyncio.to_thread(earlier.wait, pid) == -signal.SIGKILL
        await aiountil(lambda: heard.exits, "its end")
        assert endpoint.reason == "the manager killed it: it was asked to stop, and did not within 0.2 s"

    asyncio.run(story())


def test_last_words_are_taken_as_a_strangers(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        (endpoint,) = make_table().adopt()
        earlier.say(command.name, b"failed unknown option\x1b[2J \xff" + b"x" * 1600 + b"\t/home/a: full")
        await aiountil(lambda: endpoint.reason, "its last words")
        assert endpoint.reason.startswith("unknown option [2J") and endpoint.reason.isprintable()
        assert len(endpoint.reason) <= 1500 and endpoint.detail == "/home/a: full"
        earlier.kill(pid)
        await aiountil(lambda: heard.deaths, "its end")

    asyncio.run(story())


def test_what_kept_it_from_checking_in_is_forgotten_when_it_has(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        earlier.start(command, State.STARTING)
        found = make_table()
        (endpoint,) = found.adopt()
        earlier.say(command.name, b"trouble cannot reach b.example:443")
        await aiountil(lambda: endpoint.detail == "cannot reach b.example:443", "its trouble")
        earlier.say(command.name, b"ready")
        await aiountil(lambda: heard.checked_in_, "its check-in")
        assert endpoint.detail == ""

    asyncio.run(story())


def test_one_that_tells_of_jobs_without_end_is_not_heard_any_more(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint
) -> None:
    async def story() -> None:
        earlier.start(command)
        found = make_table()
        (endpoint,) = found.adopt()
        with contextlib.suppress(BrokenPipeError):
            for number in range(2000):
                earlier.say(command.name, b"jobs Job %d" % number)
                await asyncio.sleep(0)
        await aiountil(lambda: endpoint.pipe is None, "nobody listens any more")

    asyncio.run(story())


def test_its_figures_are_kept_as_they_came(make_table: TableMaker, earlier: Earlier, command: StartEndpoint) -> None:
    """Nobody in the monitor reads them, so they may be anything that fits; the words after them are heard."""

    async def story() -> None:
        earlier.start(command)
        (endpoint,) = make_table().adopt()
        for said in (b'{"running": 3}', b"\xff\x1b[2J", b"[" * 1500):
            earlier.say(command.name, b"figures " + said)
            await aiountil(lambda said=said: endpoint.figures == said, "its figures")  # type: ignore[misc]
            assert shown.user_endpoint(endpoint)["figures"].encode("ascii", "replace").count(b"?") == said.count(
                b"\xff"
            )
        earlier.say(command.name, b"ready")
        await aiountil(lambda: b"ready" in endpoint.said, "the word after them")

    asyncio.run(story())


@pytest.mark.parametrize(("said", "times"), [(b"x", 2000), (b"x" * 1501, 1)])
def test_one_that_tells_figures_without_end_is_not_heard_any_more(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, said: bytes, times: int
) -> None:
    async def story() -> None:
        earlier.start(command)
        (endpoint,) = make_table().adopt()
        with contextlib.suppress(BrokenPipeError):
            for _ in range(times):
                earlier.say(command.name, b"figures " + said)
                await asyncio.sleep(0)
        await aiountil(lambda: endpoint.pipe is None, "nobody listens any more")

    asyncio.run(story())


def test_one_that_asks_for_another_is_started_again(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        make_table().adopt()
        for word in (b"stopping", b"again", b"stopped"):
            earlier.say(command.name, word)
        earlier.kill(pid)
        await aiountil(lambda: heard.revived, "its revival")
        assert heard.deaths == []

    asyncio.run(story())


@pytest.mark.parametrize("clean", [False, True])
def test_a_limit_that_was_met_is_named_after_its_last_words(
    make_table: TableMaker,
    earlier: Earlier,
    command: StartEndpoint,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    clean: bool,
) -> None:
    slice_ = tmp_path / "cgroups" / "mep-prod-1001.slice"
    counts, scope = slice_ / "uep.scope" / "memory.events", f"/{slice_.name}/uep.scope"
    counts.parent.mkdir(parents=True)
    for folder in (slice_, counts.parent):
        (folder / "memory.events").write_text("oom 0\noom_kill 0\n")
    (slice_ / "memory.max").write_text("67108864\n")
    monkeypatch.setattr(cgroups, "cgroups_of", lambda pid: {"": scope})
    monkeypatch.setattr(cgroups, "mounts", lambda: {"": ("/", slice_.parent)})

    async def story() -> None:
        pid = earlier.start(command, scope="uep.scope")
        (endpoint,) = make_table().adopt()
        earlier.say(command.name, b"stopped" if clean else b"failed a worker is lost\tworker 3")
        counts.write_text("oom 0\noom_kill 1\n")
        (slice_ / "memory.events").write_text("oom 1\noom_kill 1\n")
        earlier.kill(pid)
        await aiountil(lambda: heard.exits, "its end")
        assert endpoint.reason.startswith("" if clean else "a worker is lost; out of memory: the kernel killed")
        assert ("64 MiB" in endpoint.reason) is ("resources.memory_max" in endpoint.reason) is not clean
        assert endpoint.detail == ("" if clean else "worker 3; limit of mep-prod-1001.slice: 67108864")

    asyncio.run(story())


@pytest.mark.parametrize("known", [b"failed no licence", None])
def test_a_guess_is_for_an_end_that_nothing_explains(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard, known: bytes | None
) -> None:
    guess = LimitMet("perhaps out of memory", "of the host", guess=True)

    class Guesses(Watched):
        def met(self) -> list[LimitMet]:
            return [guess]

    async def story() -> None:
        pid = earlier.start(command)
        (endpoint,) = make_table().adopt()
        endpoint.limits = Guesses()
        if known is not None:
            earlier.say(command.name, known)
        earlier.kill(pid)
        await aiountil(lambda: heard.exits, "its end")
        assert endpoint.reason == ("perhaps out of memory" if known is None else "no licence")

    asyncio.run(story())


def test_words_are_heard_once(make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard) -> None:
    async def story() -> None:
        pid = earlier.start(command, State.STARTING)
        found = make_table()
        (endpoint,) = found.adopt()
        for word in (b"ready", b"working"):
            earlier.say(command.name, word)
        await aiountil(lambda: heard.working_, "its words")
        assert heard.checked_in_ == heard.working_ == [pid]
        assert endpoint.state is State.RUNNING and endpoint.worked
        earlier.say(command.name, b"ready")
        await aiountil(lambda: endpoint.pipe is None, "nobody listens to what makes no sense")
        assert heard.checked_in_ == [pid]
        found.release()
        (again,) = make_table().adopt()
        assert again.state is State.RUNNING and again.worked

    asyncio.run(story())


@pytest.mark.parametrize("word", [b"nonsense", b"", b"\xff" * 300])
def test_nobody_listens_to_nonsense(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard, word: bytes
) -> None:
    async def story() -> None:
        earlier.start(command, State.STARTING)
        (endpoint,) = make_table().adopt()
        earlier.say(command.name, word)
        await aiountil(lambda: endpoint.pipe is None, "nobody listens")
        assert endpoint.state is State.STARTING
        assert heard.checked_in_ == []

    asyncio.run(story())


@pytest.mark.parametrize("record", [b"second", None])
def test_whose_tasks_cannot_be_audited_is_killed(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard, record: bytes | None
) -> None:
    """Because the trail cannot be written, or because it has closed its pipe."""

    async def story() -> None:
        pid = earlier.start(command, audited=True)
        (endpoint,) = make_table(high_assurance=True).adopt()
        earlier.audit(command.name, b"first")
        await aiountil(lambda: heard.records == [b"first"], "a record")
        assert earlier.runs(pid)
        heard.unaudited = "the audit trail cannot be written"
        earlier.audit(command.name, record)
        assert await asyncio.to_thread(earlier.wait, pid) == -signal.SIGKILL
        await aiountil(lambda: heard.exits, "its end")
        if record is not None:  # a pipe that is closed is so at any end, too
            assert endpoint.reason.startswith("the manager killed it: the audit trail")

    asyncio.run(story())


def test_one_that_cannot_be_audited_is_stopped(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        (endpoint,) = make_table(high_assurance=True).adopt()
        assert await asyncio.to_thread(earlier.wait, pid) == -signal.SIGTERM
        await aiountil(lambda: heard.exits, "its end")
        assert endpoint.reason == "the manager stopped it: it was started when nothing had to be audited"
        assert heard.deaths == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("before", "now", "goes_on"),
    [
        (["a"], ["a"], True),
        (None, None, True),
        (["a"], ["b"], False),
        (["a"], None, False),
        (None, ["a"], False),
        (["a@sha256:00"], ["a@sha256:01"], False),
        (["a"], ["a@sha256:01"], False),
        ("of an earlier version", ["a"], True),
        ("of an earlier version", ["a@sha256:01"], False),
    ],
)
def test_one_that_may_run_other_functions_than_now_is_stopped(
    make_table: TableMaker,
    earlier: Earlier,
    command: StartEndpoint,
    heard: Heard,
    before: list[str] | str | None,
    now: list[str] | None,
    goes_on: bool,
) -> None:
    async def story() -> None:
        known = None if isinstance(before, str) else functions.fingerprint(before)
        pid = earlier.start(command, functions=known)
        (endpoint,) = make_table(allowed_functions=None if now is None else tuple(now)).adopt()
        if goes_on:
            assert endpoint.reason == ""
            assert earlier.runs(pid)
            return
        assert await asyncio.to_thread(earlier.wait, pid) == -signal.SIGTERM
        await aiountil(lambda: heard.exits, "its end")
        assert endpoint.reason == "the manager stopped it: it was started when other functions were allowed"

    asyncio.run(story())


# What ended while no manager ran


def test_what_was_missed_is_told_when_no_command_comes(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        earlier.kill(pid)
        found = make_table(mu_child_ep_grace_period_s=0.0)
        assert found.adopt() == []
        assert [who for who, _ in heard.exits] == [pid]
        await aiountil(lambda: heard.deaths, "its user is told")
        assert [(who, report.ending) for who, report in heard.deaths] == [(pid, "ended while no manager ran")]
        assert record.folders(earlier.run_directory) == []

    asyncio.run(story())


def test_what_was_missed_is_not_told_when_a_command_comes(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        earlier.kill(earlier.start(command))
        found = make_table(mu_child_ep_grace_period_s=LONG)
        found.adopt()
        assert found.get(command.name) is None and list(found) == [], "it does not run"
        assert record.folders(earlier.run_directory), "its folder stays until somebody has been told"
        found.command_came("another")
        assert record.folders(earlier.run_directory)
        found.command_came(command.name)
        assert record.folders(earlier.run_directory) == []
        await found.stop_all()
        assert heard.deaths == [] and len(heard.exits) == 1

    asyncio.run(story())


def test_what_was_missed_is_reported_once_and_told_once_by_any_manager(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        earlier.kill(pid)
        for _ in range(3):
            found = make_table(mu_child_ep_grace_period_s=LONG)
            found.adopt()
            found.release()
        assert heard.deaths == []
        make_table(mu_child_ep_grace_period_s=0.0).adopt()
        await aiountil(lambda: heard.deaths, "its user is told")
        assert [who for who, _ in heard.exits] == [who for who, _ in heard.deaths] == [pid]

    asyncio.run(story())


def test_what_was_missed_is_told_by_a_manager_that_stops(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        earlier.kill(pid)
        found = make_table(mu_child_ep_grace_period_s=LONG)
        found.adopt()
        await found.stop_all()
        assert [who for who, _ in heard.deaths] == [pid]
        assert record.folders(earlier.run_directory) == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("remembered_for", "state", "revived"),
    [(LONG, State.RUNNING_ASKED, True), (1e-9, State.RUNNING_ASKED, False), (1e-9, State.DRAINING_ASKED, True)],
)
def test_what_was_missed_and_asked_for_is_started_again(
    make_table: TableMaker,
    earlier: Earlier,
    command: StartEndpoint,
    heard: Heard,
    remembered_for: float,
    state: State,
    revived: bool,
) -> None:
    async def story() -> None:
        pid = earlier.start(command, state, remembered_for=remembered_for)
        earlier.kill(pid)
        make_table(mu_child_ep_grace_period_s=LONG).adopt()
        assert [who for who, _ in heard.revived] == ([pid] if revived else [])
        assert [who for who, _ in heard.exits] == [pid]

    asyncio.run(story())


def test_one_that_was_being_stopped_leaves_nothing_when_it_ends_unwatched(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        earlier.kill(earlier.start(command, State.STOPPING))
        make_table(mu_child_ep_grace_period_s=LONG).adopt()
        assert len(heard.exits) == 1 and heard.deaths == []
        assert record.folders(earlier.run_directory) == []

    asyncio.run(story())


def test_one_whose_start_was_not_finished_is_killed(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command, executed=False)
        assert make_table().adopt() == []
        assert await asyncio.to_thread(earlier.wait, pid) == -signal.SIGKILL
        assert heard.exits == []
        assert record.folders(earlier.run_directory) == []

    asyncio.run(story())


def test_one_whose_record_cannot_be_read_is_asked_to_stop(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        pid = earlier.start(command)
        path = earlier.run_directory / command.name / "state.json"
        path.write_text(path.read_text().replace('"format": 6', '"format": 99'))
        assert make_table().adopt() == []
        assert await asyncio.to_thread(earlier.wait, pid) == -signal.SIGTERM
        assert "cannot be adopted" in caplog.text

    asyncio.run(story())


# The end of the manager


def test_a_stop_ends_all(make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard) -> None:
    async def story() -> None:
        pids = [earlier.start(named(command, name)) for name in ("a", "b", "c")]
        found = make_table()
        found.adopt()
        found.stop()
        await found.stop_all()
        assert [earlier.wait(pid) for pid in pids] == [-signal.SIGTERM] * 3
        assert sorted(who for who, _ in heard.exits) == sorted(pids)
        assert heard.deaths == heard.revived == []
        assert heard.counts[-1] == 0
        assert record.folders(earlier.run_directory) == []

    asyncio.run(story())


def test_what_does_not_stop_is_killed_and_who_has_asked_gets_an_answer(
    make_table: TableMaker,
    earlier: Earlier,
    command: StartEndpoint,
    newer: StartEndpoint,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    async def story() -> None:
        deaf = ("/bin/sh", "-c", f"trap '' TERM; touch {tmp_path}/deaf; sleep 3600; true")
        pid = earlier.start(command, program=deaf)
        await aiountil((tmp_path / "deaf").exists, "it is deaf")
        found = make_table(mu_child_ep_grace_period_s=LONG)
        (endpoint,) = found.adopt()
        await found.refresh(newer)
        monkeypatch.setattr(table, "STOP_TIMEOUT", 0.2)
        found.stop()
        assert endpoint.state is State.STOPPING_ASKED
        await found.stop_all()
        assert await asyncio.to_thread(earlier.wait, pid) == -signal.SIGKILL
        await aiountil(lambda: heard.revived, "an answer")
        assert [(who, facts(again)) for who, again in heard.revived] == [(pid, facts(newer))] and heard.deaths == []
        assert endpoint.reason == "the manager killed it: it was asked to stop, and did not within 0.2 s"

    asyncio.run(story())


def test_what_happens_after_a_release_is_for_the_next(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    async def story() -> None:
        pid = earlier.start(command, State.RUNNING_ASKED, remembered_for=0.05)
        found = make_table()
        (endpoint,) = found.adopt()
        found.release()
        earlier.kill(pid)
        await asyncio.sleep(0.1)  # its timer would have come; nothing does
        assert heard.exits == [] and endpoint.state is State.RUNNING_ASKED
        make_table(mu_child_ep_grace_period_s=LONG).adopt()
        assert [who for who, _ in heard.exits] == [pid]

    asyncio.run(story())


def test_a_command_that_nobody_can_write_keeps_nobody_from_being_stopped(
    make_table: TableMaker, earlier: Earlier, command: StartEndpoint, heard: Heard
) -> None:
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}

    async def story() -> None:
        pids = [earlier.start(named(command, name)) for name in ("a", "b")]
        found = make_table()
        first, _ = found.adopt()
        await found.refresh(dataclasses.replace(first.command, identity_set=deep))  # type: ignore[arg-type]
        await found.stop_all()
        assert [earlier.wait(pid) for pid in pids] == [-signal.SIGTERM] * 2

    asyncio.run(story())
