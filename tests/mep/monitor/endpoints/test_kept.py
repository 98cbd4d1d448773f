"""What lies on disk of user endpoints, for the time after a crash of the host."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mep.monitor.endpoints import kept
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.kept import KeptEndpoints
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes import forked
from mep.processes.process import Process
from mep.request.account import Account
from mep.request.start_endpoint import StartEndpoint
from tests.mep.credentials import facts, inside, with_sealed


@pytest.fixture
def endpoint(tmp_path: Path, command: StartEndpoint, alice: Account) -> UserEndpoint:
    """This process, as if it were a user endpoint of alice's."""
    process, credentials = Process.of(os.getpid(), os.getuid()), CredentialFile(tmp_path / "none", "key")
    return UserEndpoint(with_sealed(command), alice, process, tmp_path, credentials, None, None, 0.0)


def test_it_outlives_its_manager_and_only_root_can_read_it(tmp_path: Path, endpoint: UserEndpoint) -> None:
    async def story() -> None:
        first = KeptEndpoints(tmp_path / "kept")
        first.keep(endpoint)
        first.keep(dataclasses.replace(endpoint, command=dataclasses.replace(endpoint.command, request_id="newest")))
        await first.flush()
        (found,) = await KeptEndpoints(tmp_path / "kept").left(known=[])
        assert facts(found.command) == facts(endpoint.command) | {"request_id": "newest"}
        assert found.uid == endpoint.account.uid
        assert await KeptEndpoints(tmp_path / "kept").left(known=[endpoint.name]) == []
        (file,) = (tmp_path / "kept").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        first.forget(endpoint.name)
        await first.flush()
        assert list((tmp_path / "kept").iterdir()) == []

    asyncio.run(story())


def test_what_comes_within_a_moment_is_written_by_one_child(
    tmp_path: Path, endpoint: UserEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks, run = [], forked.run

    async def counted(work: Callable[[], None], within: float) -> None:
        forks.append(work)
        await run(work, within)

    async def story() -> None:
        files = KeptEndpoints(tmp_path / "kept")
        for name in ("uep.1", "uep.2", "uep.3"):
            files.keep(dataclasses.replace(endpoint, command=dataclasses.replace(endpoint.command, name=name)))
            await asyncio.sleep(0)
        await files.flush()

    monkeypatch.setattr(forked, "run", counted)
    asyncio.run(story())
    assert len(forks) == 1
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_one_that_was_taken_over_can_be_forgotten(tmp_path: Path, endpoint: UserEndpoint) -> None:
    async def story() -> None:
        first, second = KeptEndpoints(tmp_path / "kept"), KeptEndpoints(tmp_path / "kept")
        first.keep(endpoint)
        await first.flush()
        assert await second.left(known=[])
        second.forget(endpoint.name)
        await second.flush()
        assert await KeptEndpoints(tmp_path / "kept").left(known=[]) == []

    asyncio.run(story())


def test_one_that_ended_while_no_manager_ran_is_forgotten_once_its_user_is_told(
    tmp_path: Path, endpoint: UserEndpoint
) -> None:
    """It is still on record in /run, so it is not recovered; and it does not run, so it is not kept anew."""

    async def story() -> None:
        first, second = KeptEndpoints(tmp_path / "kept"), KeptEndpoints(tmp_path / "kept")
        first.keep(endpoint)
        await first.flush()
        assert await second.left(known=[endpoint.name]) == []
        second.forget(endpoint.name)
        await second.flush()
        assert list((tmp_path / "kept").iterdir()) == []

    asyncio.run(story())


@pytest.mark.parametrize("version", [1, 2])
def test_what_an_earlier_version_kept_is_read(tmp_path: Path, endpoint: UserEndpoint, version: int) -> None:
    """Its credentials were not sealed: they go on without having been read."""

    async def story() -> None:
        files = KeptEndpoints(tmp_path / "kept")
        files.keep(endpoint)
        await files.flush()
        (file,) = (tmp_path / "kept").iterdir()
        then = json.loads(file.read_text())
        del then["key"], then["credentials"]
        then["command"]["credentials"] = inside(endpoint.command.credentials)
        if version == 1:
            for name in ("user_options", "identity_set"):
                then["command"][name] = json.loads(getattr(endpoint.command, name))
        file.write_text(json.dumps({**then, "format": version}))
        os.utime(file, (then_written := file.stat().st_mtime - 1000, then_written))
        for _ in range(2):  # the next manager finds what this one has made of it
            (kept,) = await KeptEndpoints(tmp_path / "kept").left(known=[])
            assert facts(kept.command) == facts(endpoint.command)
            assert kept.command.credentials.key == ""
        assert file.stat().st_mtime == pytest.approx(then_written)
        assert "hunter2" not in file.read_text()
        assert {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "kept").iterdir()} == {0o600}
        files = KeptEndpoints(tmp_path / "kept")
        files.keep(endpoint)
        await files.flush()
        assert list((tmp_path / "kept").iterdir()) == [file]

    asyncio.run(story())


def test_no_password_is_on_the_disk_in_the_clear(tmp_path: Path, endpoint: UserEndpoint) -> None:
    async def story() -> None:
        files = KeptEndpoints(tmp_path / "kept")
        files.keep(endpoint)
        await files.flush()
        assert "hunter2" in json.dumps(inside(endpoint.command.credentials)), "there is one to look for"
        (file,) = (tmp_path / "kept").iterdir()
        assert "hunter2" not in file.read_text()

    asyncio.run(story())


@pytest.mark.parametrize("garbage", ["", "[]", '{"format": 7}', '{"format": 1}', "[" * 100_000])
def test_what_is_not_ours_or_not_whole_is_passed_over(
    tmp_path: Path, endpoint: UserEndpoint, garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        files = KeptEndpoints(tmp_path / "kept")
        files.keep(endpoint)
        await files.flush()
        (tmp_path / "kept" / "half.json").write_text(garbage)
        assert [each.command.name for each in await files.left(known=[])] == [endpoint.name]

    asyncio.run(story())
    assert f"{tmp_path}/kept/half.json: cannot be understood" in caplog.text


def test_one_that_the_service_has_forgotten_is_removed(tmp_path: Path, endpoint: UserEndpoint) -> None:
    async def story() -> None:
        files = KeptEndpoints(tmp_path / "kept")
        files.keep(endpoint)
        await files.flush()
        (path,) = (tmp_path / "kept").iterdir()
        old = path.stat().st_mtime - kept.LONGEST - 1
        os.utime(path, (old, old))
        later = KeptEndpoints(tmp_path / "kept")
        assert await later.left(known=[]) == []
        await later.flush()
        assert not path.exists()

    asyncio.run(story())


def test_a_disk_that_cannot_be_written_is_said(
    tmp_path: Path, endpoint: UserEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        (tmp_path / "kept").write_text("")
        files = KeptEndpoints(tmp_path / "kept")
        files.keep(endpoint)
        await files.flush()
        (tmp_path / "kept").unlink()
        files.keep(endpoint)  # it is written with the next occasion
        await files.flush()
        assert len(await files.left(known=[])) == 1

    asyncio.run(story())
    assert "tasks may stay unanswered" in caplog.text


def test_one_that_still_runs_is_asked_to_stop(endpoint: UserEndpoint) -> None:
    """Only /run was wiped. After a boot its number may be anybody's."""
    with subprocess.Popen(["sleep", "600"]) as process:
        found = kept.Kept(endpoint.command, 0, kept.boot_id(), Process.of(process.pid, os.getuid()))
        assert not dataclasses.replace(found, boot="another").ask_to_stop()
        assert process.poll() is None
        assert found.ask_to_stop()
        assert process.wait() == -signal.SIGTERM
    assert not found.ask_to_stop()
