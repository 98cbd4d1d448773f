"""One run of the manager with a stub worker: started, signalled, stopped, kept, and broken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lab.waiting import aiountil
from mep.cli import asking
from mep.monitor.endpoints import record
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.manager import Manager
from mep.monitor.status_socket import StatusSocket
from mep.processes.status_protocol import MOST_FACTS
from mep.reader import loader
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.start_endpoint import StartEndpoint
from tests.mep.monitor.managers import Site, send


@pytest.fixture
def site(tmp_path: Path, profile_directory: Path, identity_of_alice: MappedIdentity, alice: Account) -> Any:
    made = Site(tmp_path, loader.load(profile_directory), identity_of_alice, alice)
    yield made
    made.earlier.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_ends_user_endpoints(site: Site, command: StartEndpoint, number: signal.Signals) -> None:
    pid = site.earlier.start(command)

    async def story(_: Manager) -> None:
        await site.serves()
        assert site.status.read_text() == "endpoint an-endpoint-id: connected; 1 user endpoint\n"
        send(number)

    site.serve(story)
    assert site.earlier.wait(pid) == -signal.SIGTERM
    assert site.worker.told == ["probe", "start", "finish, good-bye", "close"]
    assert [line["pid"] for line in site.trail("adopted")] == [line["pid"] for line in site.trail("exited")] == [pid]
    assert site.notices.sent == []
    assert not site.status.exists()
    assert (site.names.started, site.names.stopped) == (site.renderer.started, site.renderer.stopped) == (1, 1)


def test_status_tells_of_jobs_from_which_no_worker_comes(site: Site, command: StartEndpoint, alice: Account) -> None:
    site.earlier.start(command)

    async def says(text: str, *, there: bool = True) -> None:
        await aiountil(
            lambda: (text in json.loads(site.worker.status.answer())["manager"]["line"]) is there, "the status"
        )

    async def story(_: Manager) -> None:
        await site.serves()
        site.earlier.say(command.name, b"jobs Job 71 runs for 5 minutes, no worker has registered\x1b[1m")
        await says(f"{alice.name}, {command.name}: Job 71 runs for 5 minutes, no worker has registered [1m")
        site.earlier.say(command.name, b"jobs ")
        await says("Job 71", there=False)
        send(signal.SIGTERM)

    site.serve(story)


@pytest.mark.parametrize(
    ("on_stop", "number", "told"),
    [("end", signal.SIGUSR1, "finish"), ("keep", signal.SIGTERM, "finish, good-bye")],
)
def test_user_endpoints_are_left_to_the_next_manager(
    site: Site, command: StartEndpoint, on_stop: str, number: signal.Signals, told: str
) -> None:
    """At a restart the service is not told, as the next manager comes at once."""
    pid = site.earlier.start(command)
    site.profile = site.with_config(site.profile, on_stop=on_stop)

    async def story(_: Manager) -> None:
        await site.serves()
        send(number)

    site.serve(story)
    assert site.worker.told == ["probe", "start", told, "close"]
    assert site.earlier.runs(pid)
    assert site.trail("exited") == []
    assert len(record.folders(site.run_directory)) == 1
    site.profile = site.with_config(site.profile, on_stop="end")

    async def next_story(_: Manager) -> None:
        await site.serves()
        send(signal.SIGTERM)

    site.serve(next_story)
    assert site.earlier.wait(pid) == -signal.SIGTERM
    assert [line["pid"] for line in site.trail("adopted")] == [pid, pid]


def test_a_signal_that_ends_them_wins_over_one_that_keeps_them(site: Site, command: StartEndpoint) -> None:
    pid = site.earlier.start(command)
    site.worker.meanwhile = signal.SIGTERM

    async def story(_: Manager) -> None:
        await site.serves()
        send(signal.SIGUSR1)

    site.serve(story)
    assert site.earlier.wait(pid) == -signal.SIGTERM


def test_a_signal_that_keeps_them_comes_too_late(site: Site, command: StartEndpoint) -> None:
    pid = site.earlier.start(command)
    site.worker.meanwhile = signal.SIGUSR1

    async def story(_: Manager) -> None:
        await site.serves()
        send(signal.SIGTERM)

    site.serve(story)
    assert site.earlier.wait(pid) == -signal.SIGTERM


def test_who_has_asked_is_told_that_the_manager_stops(site: Site, command: StartEndpoint) -> None:
    pid = site.earlier.start(command, State.RUNNING_ASKED, remembered_for=3600.0)

    async def story(_: Manager) -> None:
        await site.serves()
        send(signal.SIGTERM)

    site.serve(story)
    assert site.earlier.wait(pid) == -signal.SIGTERM
    ((request_id, text),) = site.notices.sent
    assert request_id == command.request_id and "being stopped" in text


@pytest.mark.parametrize("keeps", [True, False])
def test_what_was_missed_is_told_at_a_stop_or_left_to_the_next_manager(
    site: Site, command: StartEndpoint, keeps: bool
) -> None:
    pid = site.earlier.start(command)
    site.earlier.kill(pid)

    async def story(_: Manager) -> None:
        await site.serves()
        send(signal.SIGUSR1 if keeps else signal.SIGTERM)

    site.serve(story)
    assert [line["pid"] for line in site.trail("exited")] == [pid]
    assert [request_id for request_id, _ in site.notices.sent] == ([] if keeps else [command.request_id])
    assert len(record.folders(site.run_directory)) == (1 if keeps else 0)


def test_what_is_broken_ends_the_manager_and_no_user_endpoint(site: Site, command: StartEndpoint) -> None:
    pid = site.earlier.start(command)

    async def story(_: Manager) -> None:
        await site.serves()
        assert site.worker.commands is not None
        site.worker.commands.set_exception(KeyError("a bug"))

    with pytest.raises(RuntimeError, match="lost its commands"):
        site.serve(story)
    assert site.earlier.runs(pid)
    assert site.worker.told == ["probe", "start", "finish", "close"]
    assert site.names.stopped == site.renderer.stopped == 1


def test_a_broker_that_cannot_be_reached_is_told_at_the_start(site: Site, command: StartEndpoint) -> None:
    pid = site.earlier.start(command)
    site.worker.unreachable = ConnectionError("nobody there")

    async def story(_: Manager) -> None:
        """Nobody stops it."""

    with pytest.raises(ConnectionError, match="nobody there"):
        site.serve(story)
    assert site.earlier.runs(pid)
    assert site.trail("adopted") == []
    assert site.worker.told == ["probe"]
    assert site.names.stopped == site.renderer.stopped == 1


def test_an_edited_profile_is_taken_over(site: Site, profile_directory: Path) -> None:
    async def story(manager: Manager) -> None:
        await site.serves()
        before = manager.heartbeat_period()
        with (profile_directory / "config.yaml").open("a") as file:
            file.write("heartbeat_period: 12\n")
        send(signal.SIGHUP)
        await aiountil(lambda: manager.heartbeat_period() != before, "the edited profile is in force")
        assert manager.heartbeat_period() == 12
        manager.not_connected("for a test")
        assert "not connected (for a test)" in site.status.read_text()
        for shared in (True, False):
            manager.shared(shared)
            assert ("another instance of it takes commands, too" in site.status.read_text()) == shared
        send(signal.SIGTERM)

    site.serve(story)


def test_who_asks_for_a_reload_is_answered_and_on_record(site: Site, profile_directory: Path) -> None:
    config = profile_directory / "config.yaml"

    async def story(manager: Manager) -> None:
        await site.serves()
        config.write_text(f"{config.read_text()}heartbeat_period: 12\n")
        answer = await asyncio.to_thread(asking.reload, site.run_directory)
        assert answer == asking.Reloaded(taken=True, text="restart needed for: audit_log_path")
        assert manager.heartbeat_period() == 12
        config.write_text(f"{config.read_text()}nonsense: 1\n")
        several = [asyncio.to_thread(asking.reload, site.run_directory) for _ in range(3)]
        for answer in await asyncio.gather(*several):
            assert not answer.taken and "nonsense" in answer.text
        send(signal.SIGTERM)

    site.serve(story)
    asked, answered = site.trail("asked"), site.trail("answered")
    assert {(line["what"], line["by_uid"], line["by_pid"]) for line in asked} == {("reload", os.getuid(), os.getpid())}
    assert [line["outcome"] for line in answered] == ["done", *["refused"] * 3]
    assert [line["request"] for line in asked] == [line["request"] for line in answered]
    assert not {"control", "api.sock"} & {path.name for path in site.run_directory.iterdir()}


@pytest.mark.parametrize("many", [0, 1, 10_000])
def test_facts_are_never_too_long(tmp_path: Path, many: int) -> None:
    """What does not fit is counted; a list about the manager itself is cut."""
    endpoints = [{"name": f"{number:010}", "figures": "x" * 1000} for number in range(many)]
    manager = {"bans": [{"target": "\u2603" * 100}] * 10 * many, "line": "all is well"}
    parts = {"user_endpoints": lambda: endpoints, "held_back": lambda: endpoints[:1]}
    answer = StatusSocket(tmp_path, lambda: manager, parts).answer()
    assert len(answer) <= MOST_FACTS
    said = json.loads(answer)
    assert said["user_endpoints"] == endpoints[: len(said["user_endpoints"])]
    assert len(said["user_endpoints"]) + len(said["held_back"]) + said["left_out"] == many + min(many, 1)
    assert (said["left_out"] > 0) is (many > 1) and said["manager"]["line"].startswith("all" if many < 2 else "")


def test_a_status_is_never_too_long(site: Site) -> None:
    async def story(manager: Manager) -> None:
        await site.serves()
        manager.not_connected("\u2603" * 10**6)
        answer = site.worker.status.answer()
        assert len(answer) <= MOST_FACTS
        assert json.loads(answer)["manager"]["line"].startswith("endpoint an-endpoint-id: not connected")
        send(signal.SIGTERM)

    site.serve(story)
