"""The file `environment`: what every `mep` command finds in its environment."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.profile.errors import ConfigError
from mep.reader import environment


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where the file would be; what it sets is forgotten afterwards."""
    before = dict(os.environ)
    yield tmp_path / "environment"
    os.environ.clear()
    os.environ.update(before)


def loaded(path: Path, text: str) -> dict[str, str]:
    """The variables that this text sets."""
    before = dict(os.environ)
    path.write_text(text)
    environment.load(path)
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def test_variables_are_set(path: Path) -> None:
    text = "# proxies\n\nMEP_T_PROXY=http://proxy:3128\n  MEP_T_TWO = x\n".replace(" = ", "=")
    assert loaded(path, text) == {"MEP_T_PROXY": "http://proxy:3128", "MEP_T_TWO": "x"}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("MEP_T=", ""),
        ("MEP_T=a=b", "a=b"),
        ("MEP_T=a b", "a b"),
        ('MEP_T="a b"', "a b"),
        ("MEP_T='a b'", "a b"),
        ("MEP_T=$HOME", "$HOME"),
        ("MEP_T=x # no comment", "x # no comment"),
        ("MEP_T=x\r", "x"),
        ("MEP_T=é", "é"),
    ],
)
def test_a_value_is_the_rest_of_the_line(path: Path, line: str, value: str) -> None:
    assert loaded(path, line + "\n").get("MEP_T", "") == value
    assert "MEP_T" in os.environ


@pytest.mark.parametrize(
    ("line", "value"), [("""MEP_T="say 'hi'\"""", "say 'hi'"), ("MEP_T='", "'"), ("MEP_T=rock 'n'", "rock 'n'")]
)
def test_only_a_pair_of_quotes_is_taken_away(path: Path, line: str, value: str) -> None:
    assert loaded(path, line)["MEP_T"] == value


def test_what_the_caller_has_set_comes_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEP_T_MINE", "mine")
    monkeypatch.setenv("MEP_T_EMPTY", "")
    assert loaded(path, "MEP_T_MINE=theirs\nMEP_T_EMPTY=x\nMEP_T=1\nMEP_T=2\n") == {"MEP_T": "1"}


def test_no_file_sets_nothing(path: Path) -> None:
    before = dict(os.environ)
    environment.load(path)
    environment.load(path / "below" / "nothing")
    assert dict(os.environ) == before


@pytest.mark.parametrize("line", ["export MEP_T=1", "MEP_T", "MEP_T = 1", "1T=1", "=1", "MEP-T=1", "MEP_T=a\0b", "- a"])
def test_a_line_that_is_none_is_named(path: Path, line: str) -> None:
    path.write_text(f"MEP_T_FIRST=1\n\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        environment.load(path)
    assert str(caught.value) == f"{path}: line 3: expected NAME=value"
    assert "MEP_T" not in os.environ


def test_others_may_not_write_it(path: Path) -> None:
    path.write_text("LD_PRELOAD=/tmp/evil.so\n")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod go-w"):
        environment.load(path)
    assert "LD_PRELOAD" not in os.environ


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_what_is_no_file_is_named(path: Path, make: object) -> None:
    assert callable(make)
    make(path)
    with pytest.raises(ConfigError, match="put a file there"):
        environment.load(path)


def test_what_is_not_text_is_named(path: Path) -> None:
    path.write_bytes(b"MEP_T=\xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        environment.load(path)


def test_a_link_that_leads_nowhere_is_named(path: Path) -> None:
    path.symlink_to("nosuch")
    with pytest.raises(ConfigError, match="environment"):
        environment.load(path)


def test_an_ordinary_user_does_without_it(path: Path, root: None) -> None:
    """Root's file may hold a proxy's password; `mep version` works for everybody all the same."""
    path.write_text("MEP_T=1\n")
    path.chmod(0o600)
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            environment.load(path)
            os._exit(0 if "MEP_T" not in os.environ else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
