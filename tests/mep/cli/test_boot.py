"""The unit of a profile: one for each name, and the profile's name is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.files import write_private
from mep.cli import boot
from mep.cli.common import choose_paths
from mep.daemon.failed import Failed
from mep.profile import profile
from mep.reader.client_credentials import ID_VARIABLE, SECRET_VARIABLE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of profiles, and a shell with client credentials."""
    monkeypatch.setenv(ID_VARIABLE, "an-id")
    monkeypatch.setenv(SECRET_VARIABLE, "hunter2")
    choose_paths(tmp_path)
    yield tmp_path
    choose_paths(None)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        (None, f"{ID_VARIABLE} and {SECRET_VARIABLE}"),
        (f"{ID_VARIABLE}=an-id\n", SECRET_VARIABLE),
        (f"{ID_VARIABLE}=an-id\n{SECRET_VARIABLE}=another\n", SECRET_VARIABLE),
        (f"{ID_VARIABLE}=an-id\n{SECRET_VARIABLE}='hunter2'\n", None),
    ],
)
def test_credentials_that_the_unit_would_not_have(folder: Path, file: str | None, named: str | None) -> None:
    if file is not None:
        write_private(folder / "environment", file)
    if named is None:
        boot._need_credentials_of_a_file()
        return
    with pytest.raises(Failed, match=f"^{named}: set in this shell") as caught:
        boot._need_credentials_of_a_file()
    assert caught.value.exit_code == os.EX_CONFIG
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("my-site", "mep@my-site.service"),
        ("a@b.c", "mep@a@b.c.service"),
        ("c++", r"mep@c\x2b\x2b.service"),
        ("über", r"mep@\xc3\xbcber.service"),
        ("a*", r"mep@a\x2a.service"),  # to systemctl, `mep@a*.service` is each that begins so
    ],
)
def test_a_unit_is_that_of_one_profile(name: str, unit: str) -> None:
    assert boot.unit(name) == unit
    assert profile.check_name(unit.removeprefix("mep@").removesuffix(".service")) == name
