"""Shell commands of the configuration: how they end, what they say, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest

from lab.waiting import aiountil, until
from uep import shell_command
from uep.config import ConfigError

LONG = 3600.0


def ended(pids: Path) -> bool:
    """Whether none runs of the processes whose ids are in a file."""
    for pid in map(int, pids.read_text().split()):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def test_one_that_succeeds_may_leave_something(tmp_path: Path) -> None:
    asyncio.run(shell_command.run("it", f"sleep 3600 & echo $! > {tmp_path}/pids", LONG))
    left = psutil.Process(int((tmp_path / "pids").read_text()))
    assert left.is_running()
    left.kill()


def test_one_that_fails_says_its_last_words(tmp_path: Path) -> None:
    command = f"sleep 3600 & echo $! > {tmp_path}/pids; printf 'no licence\\033\\n' >&2; exit 3"
    with pytest.raises(ConfigError, match=r"it failed with exit code 3; the end of its output:\nno licence\?$"):
        asyncio.run(shell_command.run("it", command, LONG))
    until(lambda: ended(tmp_path / "pids"), "what it has started to end")


def test_one_that_has_no_end_is_killed_with_its_children(tmp_path: Path) -> None:
    command = f"echo waiting; trap '' TERM; set -m; sleep 3600 & echo $! $$ > {tmp_path}/pids; wait"
    with pytest.raises(ConfigError, match=r"it was ended after 1 s: not done; the end of its output:\nwaiting"):
        asyncio.run(shell_command.run("it", command, 1.0))
    until(lambda: ended(tmp_path / "pids"), "it and its children to end")


def test_one_that_is_cancelled_is_killed_with_its_children(tmp_path: Path) -> None:
    async def story() -> None:
        pids = tmp_path / "pids"
        command = f"sleep 3600 & echo $! $$ > {tmp_path}/new; mv {tmp_path}/new {pids}; wait"
        running = asyncio.ensure_future(shell_command.run("it", command, LONG))
        await aiountil(pids.exists, "it to run")
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await aiountil(lambda: ended(pids), "it and its children to end")

    asyncio.run(story())


def test_much_output_is_bounded() -> None:
    with pytest.raises(ConfigError) as caught:
        asyncio.run(shell_command.run("it", "yes | head -c 5000000; echo end; exit 1", LONG))
    assert str(caught.value).endswith("end") and len(str(caught.value)) < 2 * shell_command.TAIL
