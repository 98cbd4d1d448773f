"""Parsing in a process without rights: what comes back, and what becomes of one that is taken over, dies or hangs."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mep.processes import forked
from mep.profile.errors import ConfigError
from mep.reader import apart, plain, yaml_text
from tests.own_children import own_children

PATH = Path("/etc/mep/prod/config.yaml")


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, math.inf, "text", "", "\x1b", [], [1, [2]], {}, {"a": {1: None, "b": [True]}}, {None: "x"}],
)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert plain.value(json.loads(json.dumps(plain.plain(value)))) == value


def test_a_value_that_no_key_takes_comes_back_by_its_look() -> None:
    found = yaml_text.load_yaml(PATH, "day: 2026-11-29\nset: !!set {a}\n")
    assert repr(found["day"]) == "datetime.date(2026, 11, 29)"
    assert repr(found["set"]) == "{'a'}"
    assert not isinstance(found["day"], str)


@pytest.mark.parametrize("carried", [["odd", 1], ["list"], [], ["list", 5], ["dict", [[["list", []], 1]]], {"a": 1}])
def test_an_answer_of_another_form_is_refused(carried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps({"problems": [], "answer": carried}).encode()
    monkeypatch.setattr(apart, "_do", lambda *_: said)
    with pytest.raises(ConfigError, match="makes no sense"):
        yaml_text.load_yaml(PATH, "a: 1")


def test_it_has_no_rights(root: None, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)

    def look() -> list[Any]:
        return [list(os.getresuid()), list(os.getresgid()), os.getgroups(), os.access(secret, os.R_OK)]

    nobody = forked.NOBODY
    assert apart.parse(PATH, look) == [[nobody] * 3, [nobody] * 3, [nobody], False]


@pytest.mark.parametrize("end", [lambda: os._exit(0), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_parser_that_dies_is_told_and_leaves_nothing(end: Any) -> None:
    before, descriptors = own_children(), set(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="without an answer"):
        apart.parse(PATH, end)
    assert own_children() == before
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_a_parser_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "WITHIN", 0.5)
    before = own_children()
    with pytest.raises(ConfigError, match="did not end within"):
        apart.parse(PATH, signal.pause)
    assert own_children() == before


def test_one_that_says_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MOST", 2**16)
    with pytest.raises(ConfigError, match="makes no sense"):
        apart.parse(PATH, lambda: "x" * 2**20)


def test_a_text_that_it_says_steers_no_terminal() -> None:
    with pytest.raises(ConfigError) as caught:
        yaml_text.load_yaml(PATH, "a: &\x1b[2J b\n")
    assert "\x1b" not in str(caught.value)
