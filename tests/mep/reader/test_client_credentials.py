"""Client credentials: from a file, or from the environment. What spoils a file: test_bad_files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from mep.profile.client_credentials import ClientCredentials
from mep.profile.errors import ConfigError
from mep.reader.client_credentials import ID_VARIABLE, SECRET_VARIABLE, find

UUID = "ee9d42e2-85b1-487f-a350-9712bb321d5f"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without credentials; what a test sets is forgotten afterwards."""
    for name in (ID_VARIABLE, SECRET_VARIABLE):
        monkeypatch.setenv(name, "")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "client.yaml"
    path.write_text(f"client_id: {UUID.upper()}\nclient_secret: hunter2\n")
    path.chmod(0o600)
    return path


def test_there_are_none() -> None:
    assert find(None) is None


def test_a_file_comes_before_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ID_VARIABLE, "another")
    monkeypatch.setenv(SECRET_VARIABLE, "other")
    assert find(file) == ClientCredentials(UUID, "hunter2")
    assert "hunter2" not in repr(find(file))


def test_the_environment_loses_the_secret(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(ID_VARIABLE, UUID)
    monkeypatch.setenv(SECRET_VARIABLE, "hunter2")
    with caplog.at_level(logging.WARNING):
        assert find(None) == ClientCredentials(UUID, "hunter2")
    assert SECRET_VARIABLE not in os.environ, "it would reach whatever is started"
    assert "client_credentials_path" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("missing", [ID_VARIABLE, SECRET_VARIABLE])
def test_half_of_them_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setenv(ID_VARIABLE, UUID)
    monkeypatch.setenv(SECRET_VARIABLE, "hunter2")
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigError, match=f"is set, and {missing} is not: set both") as caught:
        find(None)
    assert "hunter2" not in str(caught.value)


def test_names_that_count_no_more_are_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FUNCX_SDK_CLIENT_SECRET", "hunter2")
    assert find(None) is None
    assert f"FUNCX_SDK_CLIENT_SECRET: not used; say {SECRET_VARIABLE}" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (f"client_id: {UUID}\n", "no client_secret"),
        ("client_secret: hunter2\n", "no client_id"),
        ("client_id:\nclient_secret: ''\n", "no client_id and no client_secret"),
    ],
)
def test_half_a_file_is_named(file: Path, text: str, missing: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"{missing}; expected two lines") as caught:
        find(file)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}\); mend it: chmod 600 {file}$"):
        find(file)


def test_what_is_wrong_is_told_without_the_secret(file: Path) -> None:
    file.write_text("client_id: no-id\nclient_secret: hunter2\n: [")
    with pytest.raises(ConfigError) as caught:
        find(file)
    assert "hunter2" not in str(caught.value)
