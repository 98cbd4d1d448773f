"""An edited profile takes the place of the one in force, as a whole or not at all: files read in a real child."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lab.waiting import aiountil, until
from mep.daemon.handed import Tried
from mep.monitor import mapping_file
from mep.monitor.profile_in_force import ProfileInForce
from mep.monitor.status import Status
from mep.processes import forked
from mep.profile.errors import ConfigErrors
from mep.profile.mapping_documents import MappingDocuments, Stamp
from mep.profile.profile import Profile
from mep.reader import files, loader
from tests.hanging import hang
from tests.own_children import own_children

LOST = "lost"
"""A file in the profile: while it is there, the child that reads dies."""
BREAKS = "breaks"
"""With this one it meets a fault of ours when it reads the profile."""
HANGS = "hangs"
"""And with this one it hangs, as a file system may."""


WRONG = "wrong"
"""And with this one, the user endpoint would refuse what is rendered."""
SLOW = "slow"
"""While it is there, nothing can be kept."""


class Reader:
    """As the manager's, but forked."""

    async def profile(self, directory: Path) -> Tried:
        profile: Profile = await forked.run(lambda: self._load(directory), 60)
        if (directory / WRONG).exists():
            raise ConfigErrors(["the engine is wrong"])
        return Tried(profile, ())

    async def mapping(self, path: Path) -> MappingDocuments:
        found: MappingDocuments = await forked.run(lambda: self._read_mapping(path), 60)
        return found

    def keep(self, profile: Profile) -> None:
        until(lambda: not (profile.directory / SLOW).exists(), "a disk that is quick")
        (profile.directory.parent / "kept").write_text(profile.config_text + profile.mapping.text)

    def _load(self, directory: Path) -> Profile:
        stumble(directory)
        if (directory / BREAKS).exists():
            raise ZeroDivisionError
        return loader.load(directory)

    def _read_mapping(self, path: Path) -> MappingDocuments:
        stumble(path.parent)
        return files.read_mapping(path)


def stamp(path: Path) -> Stamp:
    """As the manager's, and in trouble when that is wanted. In the child."""
    stumble(path.parent)
    return LOOK(path)


LOOK = mapping_file.stamp


def stumble(directory: Path) -> None:
    if (directory / LOST).exists():
        os._exit(1)
    if (directory / HANGS).exists():
        (directory / HANGS).unlink()
        time.sleep(3600)


class Site:
    """A profile in force, and the folder that it was read from."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._status_file = directory.parent / "status"
        self.before: list[Profile] = []
        profile = loader.load(directory)
        self.told: list[tuple[bool, str]] = []
        status = Status("id", self._status_file)
        self.in_force = ProfileInForce(profile, Reader(), status, self._tell, self.before.append)

    def _tell(self, taken: bool, text: str) -> None:
        self.told.append((taken, text))

    def status(self) -> str:
        return self._status_file.read_text() if self._status_file.exists() else ""

    def edit(self, line: str) -> None:
        with (self.directory / "config.yaml").open("a") as file:
            file.write(f"{line}\n")

    def edit_mapping(self, text: str) -> None:
        new = self.directory / "new.json"
        new.write_text(text)
        new.rename(self.directory / "mapping.json")


@pytest.fixture
def run(
    profile_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Site], Awaitable[None]]], None]:
    monkeypatch.setattr(mapping_file, "stamp", stamp)
    monkeypatch.setattr(mapping_file, "PERIOD", 0.01)

    def run(story: Callable[[Site], Awaitable[None]]) -> None:
        async def told() -> None:
            site, before = Site(profile_directory), own_children()
            watching = asyncio.ensure_future(site.in_force.watch_mapping())
            try:
                await story(site)
                assert not watching.done(), "it watches as long as the manager runs"
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await site.in_force.close()
                await aiountil(lambda: own_children() <= before, "nobody reads any more")

        asyncio.run(told())

    return run


Run = Callable[[Callable[[Site], Awaitable[None]]], None]


def test_a_good_edit_is_in_force(run: Run) -> None:
    async def story(site: Site) -> None:
        before = site.in_force.profile
        site.edit("heartbeat_period: 12")
        site.in_force.reload()
        await aiountil(lambda: site.before, "a reload")
        assert site.before == [before]
        assert site.in_force.profile.config.heartbeat_period == 12
        assert site.in_force.profile.digest != before.digest
        await aiountil(lambda: site.told == [(True, "")], "the outcome")

    run(story)


def test_a_bad_edit_is_refused_as_a_whole(run: Run) -> None:
    async def story(site: Site) -> None:
        before = site.in_force.profile
        site.edit("heartbeat_period: 12\nno_such_key: 1")
        site.in_force.reload()
        await aiountil(lambda: "edited profile refused" in site.status(), "it is told")
        assert "no_such_key" in site.status()
        assert site.in_force.profile is before and site.before == []
        ((taken, text),) = site.told
        assert not taken and "no_such_key" in text

    run(story)


def test_what_a_user_endpoint_would_refuse_is_a_bad_edit(run: Run) -> None:
    async def story(site: Site) -> None:
        before = site.in_force.profile
        (site.directory / WRONG).touch()
        site.edit("heartbeat_period: 12")
        site.in_force.reload()
        await aiountil(lambda: "edited profile refused" in site.status(), "it is told")
        assert "the engine is wrong" in site.status()
        assert site.in_force.profile is before and not (site.directory.parent / "kept").exists()

    run(story)


def test_what_is_accepted_is_kept_for_the_next_start(run: Run) -> None:
    kept = "accepted by a reload"

    async def story(site: Site) -> None:
        file = site.directory.parent / "kept"
        site.edit(f"# {kept}")
        site.in_force.reload()
        await aiountil(lambda: file.exists() and kept in file.read_text(), "the copy")
        site.edit("no_such_key: 1")
        site.in_force.reload()
        await aiountil(lambda: "edited profile refused" in site.status(), "the refusal")
        site.edit_mapping(json.dumps([*json.loads(site.in_force.profile.mapping.text)], indent=7))
        await aiountil(lambda: "       " in file.read_text(), "the copy with the new mapping")
        assert "no_such_key" not in file.read_text()

    run(story)


def test_what_needs_a_restart_is_named(run: Run) -> None:
    async def story(site: Site) -> None:
        before = site.in_force.profile.config.amqp_port
        site.edit("amqp_port: 5671\nheartbeat_period: 12")
        site.in_force.reload()
        await aiountil(lambda: "restart needed for: amqp_port" in site.status(), "it is told")
        assert site.in_force.profile.config.amqp_port == before
        assert site.in_force.profile.config.heartbeat_period == 12

    run(story)


def test_a_reader_that_dies_changes_nothing(run: Run) -> None:
    async def story(site: Site) -> None:
        before = site.in_force.profile
        (site.directory / LOST).touch()
        site.in_force.reload()
        await aiountil(lambda: "ended without an answer" in site.status(), "it is told")
        assert site.in_force.profile is before

    run(story)


def test_a_fault_of_ours_is_told_as_any_refusal(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def edit(site: Site) -> None:
        before = site.in_force.profile
        (site.directory / BREAKS).touch()
        site.in_force.reload()
        await aiountil(lambda: "edited profile refused, the old one is in force" in site.status(), "the refusal")
        assert site.in_force.profile is before
        (site.directory / BREAKS).unlink()

    run(edit)
    assert "ZeroDivisionError" in caplog.text


def test_a_reload_takes_the_place_of_one_that_hangs(run: Run) -> None:
    async def story(site: Site) -> None:
        site.edit("heartbeat_period: 11")
        (site.directory / HANGS).touch()
        site.in_force.reload()
        await aiountil(lambda: not (site.directory / HANGS).exists(), "it hangs")
        site.edit("# edited once more")
        site.in_force.reload()
        await aiountil(lambda: site.before, "the second reload")
        assert len(site.before) == 1

    run(story)


def test_what_is_in_force_is_kept_and_watched_whatever_the_next_reload_comes_to(run: Run) -> None:
    """That one comes while the first is being kept, and is refused."""

    async def story(site: Site) -> None:
        (site.directory / SLOW).touch()
        other = site.directory / "other.json"
        other.write_text((site.directory / "mapping.json").read_text())
        config = site.directory / "config.yaml"
        config.write_text(config.read_text().replace("mapping.json", "other.json"))
        site.edit("start_timeout: 77")
        site.in_force.reload()
        await aiountil(lambda: site.in_force.profile.config.start_timeout == 77, "the first reload")
        site.edit("nonsense: 1")
        site.in_force.reload()
        await aiountil(lambda: site.told, "the second one")
        assert not site.told[0][0]
        (site.directory / SLOW).unlink()
        kept = site.directory.parent / "kept"
        await aiountil(lambda: kept.exists() and "start_timeout: 77" in kept.read_text(), "what is in force is kept")
        edited = other.read_text() + "\n"
        other.write_text(edited)
        await aiountil(
            lambda: site.in_force.profile.mapping.path == other and site.in_force.profile.mapping.text == edited,
            "the file that is in force is watched",
        )

    run(story)


def test_an_edited_mapping_is_in_force_by_itself(run: Run) -> None:
    async def story(site: Site) -> None:
        before = site.in_force.profile
        site.edit_mapping(json.dumps([*json.loads(before.mapping.text), *json.loads(before.mapping.text)]))
        await aiountil(lambda: site.in_force.profile.mapping.digest != before.mapping.digest, "the new one in force")
        assert site.in_force.profile.config == before.config

    run(story)


def test_a_bad_mapping_is_refused_until_it_is_mended(run: Run) -> None:
    async def story(site: Site) -> None:
        before = site.in_force.profile
        site.edit_mapping("[{")
        await aiountil(lambda: "edited mapping refused" in site.status(), "it is told")
        assert site.in_force.profile is before
        site.edit_mapping(before.mapping.text)
        await aiountil(lambda: "mapping" not in site.status(), "it is in order again")
        assert site.in_force.profile is before

    run(story)


def test_who_watches_the_mapping_may_die(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mep.monitor.profile_in_force.PAUSE", 0.01)

    async def story(site: Site) -> None:
        before = site.in_force.profile
        site.edit_mapping("[{")
        await aiountil(lambda: "edited mapping refused" in site.status(), "the first look")
        (site.directory / LOST).touch()
        await aiountil(lambda: "cannot be watched" in site.status(), "some to die")
        (site.directory / LOST).unlink()
        await aiountil(lambda: "edited mapping refused" in site.status(), "what is wrong still")
        site.edit_mapping(before.mapping.text)
        await aiountil(lambda: "mapping" not in site.status(), "somebody looks again")

    run(story)


@pytest.mark.usefixtures("root")
def test_a_mapping_that_cannot_be_looked_at_is_told_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mep.monitor.profile_in_force.WATCH_LIMIT", 3.0)

    async def story(site: Site) -> None:
        before, others = site.in_force.profile, own_children()
        hanging = hang(site.directory)
        try:
            await aiountil(hanging.take, "a look that hangs")
            await aiountil(lambda: "does not answer" in site.status(), "it is told")
            assert site.in_force.profile is before
            assert len(own_children() - others) <= 1, "nobody hangs beside it"
        finally:
            hanging.stop()
        await aiountil(lambda: "does not answer" not in site.status(), "it is looked at again")
        site.edit_mapping(json.dumps([*json.loads(before.mapping.text), *json.loads(before.mapping.text)]))
        await aiountil(lambda: site.in_force.profile.mapping.digest != before.mapping.digest, "the new one in force")

    run(story)
    said = [record.getMessage() for record in caplog.records if "cannot be looked at" in record.getMessage()]
    assert len(said) == 1 and "mapping.json" in said[0]
    assert "can be looked at again" in caplog.text


def test_a_refused_mapping_is_told_again_after_a_watch_that_hung(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mep.monitor.profile_in_force.WATCH_LIMIT", 1.0)

    async def story(site: Site) -> None:
        site.edit_mapping("[{")
        await aiountil(lambda: "edited mapping refused" in site.status(), "it is told")
        (site.directory / HANGS).touch()
        await aiountil(lambda: "does not answer" in site.status(), "that it hangs")
        await aiountil(lambda: "edited mapping refused" in site.status(), "what is wrong still")

    run(story)


@pytest.mark.usefixtures("root")
def test_a_manager_ends_while_a_look_hangs(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mep.monitor.profile_in_force.WATCH_LIMIT", 1.0)

    async def story(site: Site) -> None:
        hanging = hang(site.directory)
        try:
            await aiountil(hanging.take, "a look that hangs")
            await aiountil(lambda: "does not answer" in site.status(), "it is told")
        finally:
            asyncio.get_running_loop().call_later(0.5, hanging.stop)  # what hangs ends after the watch

    run(story)
    assert "Exception in callback" not in caplog.text
