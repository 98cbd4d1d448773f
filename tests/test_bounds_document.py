"""docs/operation.md keeps its word on how long anybody waits: bounds are the code's, and each row names its tests."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any

import pytest
from parsl.executors import HighThroughputExecutor

from mep.profile.config import ManagerConfig
from tests.references import PROJECT, REFERENCE, not_collected
from uep.config import EndpointConfig
from uep.engines.htex import engine

SECTION = (PROJECT / "docs/operation.md").read_text().split("## How long anybody waits\n")[1].split("\n## ")[0]
ROWS = [tuple(line.strip("| ").split(" | ")) for line in SECTION.splitlines() if line.startswith("| ")][1:]
BOUND = re.compile(r"`([\w/.:]+)` (\d+(?:\.\d+)?) s\b")
NO_BOUND = ("the clock stands still", "at once", "nothing waits", "three in a row")
UNIT = (PROJECT / "systemd" / "mep@.service").read_text()


def default(name: str) -> float:
    """The number of seconds that the code has for a key or constant. Raises for one that is not there."""
    if ":" in name:
        file, constant = name.split(":")
        value: Any = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), constant)
    elif name[0].isupper():
        (value,) = re.findall(rf"^{name}=(\d+)$", UNIT, re.MULTILINE)
    elif name in ("worker_patience", "submit_patience"):
        value = engine.PATIENCE
    elif name == "heartbeat_threshold":
        value = inspect.signature(HighThroughputExecutor.__init__).parameters[name].default
    else:
        keys = {
            each.name: each.default for kind in (ManagerConfig, EndpointConfig) for each in dataclasses.fields(kind)
        }
        value = keys[name]
    return float(value)


def test_there_is_a_row_for_each_kind() -> None:
    assert len(ROWS) >= 25
    assert len({what for what, *_ in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_bound_is_the_codes(row: tuple[str, ...]) -> None:
    what, within, by, held_by = row if len(row) == 4 else (row[0], row[1].removesuffix(" |"), "", row[-1])
    bounds = BOUND.findall(within)
    assert bounds or within.startswith((*NO_BOUND, "the manager's start after the boot")), f"{what}: what bounds it?"
    assert len(bounds) == len(re.findall(r"\d s\b", within)), "each number of seconds has its name before it"
    assert {name: float(number) for name, number in bounds} == {name: default(name) for name, _ in bounds}
    assert by or not bounds or within.startswith(NO_BOUND), f"{what}: who answers?"
    assert REFERENCE.findall(held_by), f"{what}: no test is named"
    assert not REFERENCE.sub("", held_by).replace(",", "").strip(), "what is not a reference would not be checked"


def test_each_test_that_is_named_is_collected() -> None:
    assert not_collected(REFERENCE.findall(SECTION)) == []
