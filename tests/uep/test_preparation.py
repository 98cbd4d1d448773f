"""What an endpoint does before its first task, in which order, and what it says when that fails."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.uep.broker.stubs import StubEngine
from uep.config import ConfigError, EndpointConfig
from uep.preparation import failure, prepare
from uep.storage.directory_lock import DirectoryInUse


class OrderedEngine(StubEngine):
    """Notes what was there when it started."""

    there: tuple[str, ...] = ()

    def start(self) -> None:
        self.there = tuple(sorted(os.listdir(self.context.directory)))


def prepared(directory: Path, setup: str | None = None) -> OrderedEngine:
    engine = OrderedEngine(directory)
    with ThreadPoolExecutor(1) as thread:
        asyncio.run(prepare(EndpointConfig({}, endpoint_setup=setup), engine, thread))
    return engine


def test_the_order(tmp_path: Path) -> None:
    """The storage comes last: its size says nothing about whether the engine can start."""
    assert prepared(tmp_path, f"touch {tmp_path}/set_up").there == ("lock", "set_up")
    assert {"open_tasks", "unacked_results"} < {path.name for path in tmp_path.iterdir()}


def test_a_setup_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="endpoint_setup failed with exit code 3"):
        prepared(tmp_path, "exit 3")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("no such provider"), 78, "no such provider"),
        (DirectoryInUse("process 7 has it"), 69, "process 7 has it"),
        (NotADirectoryError(20, "Not a directory", "/home/secret"), 78, "directory cannot be used: Not a directory"),
        (RuntimeError("/home/secret"), 70, "The OrderedEngine did not start; the endpoint's log says why."),
    ],
)
def test_what_the_user_hears(error: Exception, code: int, text: str, tmp_path: Path) -> None:
    said = failure(error, OrderedEngine(tmp_path))
    assert said.code == code
    assert text in said.text
    assert "secret" not in said.text
