from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mep.profile import places
from mep.profile.errors import ConfigError
from mep.profile.paths import Paths

NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "way" / "folder"
    made.mkdir(mode=0o755, parents=True)
    return made


def refusal(look: Callable[[Path], None], path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        look(path)
    return str(caught.value)


def test_a_folder_of_ours(folder: Path) -> None:
    places.check(folder)
    places.check(folder / "not" / "there yet")
    (folder / "file").touch(mode=0o600)
    os.mkfifo(folder / "pipe", 0o600)
    places.check_all(folder)
    places.check_all(folder / "not there")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o1775])
@pytest.mark.parametrize("place", ["", "not there", "not/there"])
def test_one_that_others_may_write_to(folder: Path, mode: int, place: str) -> None:
    folder.chmod(mode)
    told = refusal(places.check, folder / place)
    assert told.startswith(f"{folder / place}: others than root may write to {folder}")
    if mode & 0o1000:
        assert f"mode {mode:04o}" in told
    remedy = f"chmod go-w {folder}" if not mode & 0o1000 else "mkdir -p -m 0700" if place else "name a folder"
    assert remedy in told


def test_the_way_may_be_sticky(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    places.check(folder)
    folder.parent.chmod(0o777)
    assert f"chmod go-w {folder.parent}" in refusal(places.check, folder)


def test_a_folder_of_somebody_else(folder: Path, root: None) -> None:
    os.chown(folder, NOBODY, -1)
    assert f"belongs to uid {NOBODY}" in refusal(places.check, folder)


def test_a_link_of_somebody_else_in_its_place(folder: Path, root: None) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    places.check(link)
    os.chown(link, NOBODY, -1, follow_symlinks=False)
    assert f"belongs to uid {NOBODY}" in refusal(places.check, link)


def test_what_is_no_folder(folder: Path) -> None:
    (folder / "file").touch()
    assert "is no folder" in refusal(places.check, folder / "file")
    (folder / "gone").symlink_to("nowhere")
    assert "cannot be looked at" in refusal(places.check, folder / "gone")


@pytest.mark.parametrize("kind", ["link", "file", "folder", "pipe", "second name", "open file"])
def test_what_others_have_left_there(folder: Path, kind: str, root: None) -> None:
    """Mending the mode of a folder does not make root's what was put there before."""
    below = folder / "uep"
    below.mkdir(mode=0o700)
    left = below / "left"
    if kind == "link":
        left.symlink_to("/etc/passwd")
    elif kind == "second name":
        (folder.parent / "roots").touch(mode=0o600)
        left.hardlink_to(folder.parent / "roots")
    elif kind == "open file":
        left.touch()
        left.chmod(0o666)
    else:
        {"file": Path.touch, "folder": Path.mkdir, "pipe": os.mkfifo}[kind](left)
        os.chown(left, NOBODY, -1)
    told = refusal(places.check_all, folder)
    assert told.startswith(f"{left}: ")
    assert told.endswith(f"rm -r {left}")


def test_the_group_of_the_system_s_log_may_write_there(folder: Path) -> None:
    """As Debian has it for /var/log."""
    folder.parent.chmod(0o775)
    places.check(folder, system=folder.parent)
    folder.parent.chmod(0o777)
    refusal(lambda path: places.check(path, system=folder.parent), folder)


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    run, state, log = (folder / name for name in ("run", "state", "log"))
    for each in (run, state, log):
        each.mkdir()
        each.chmod(0o1777)
    with pytest.raises(ConfigError) as caught:
        places.check_profile(Paths(folder, state, run, log), folder / "prod")
    assert len(str(caught.value).splitlines()) == 3 + 2, "the log's own folder, kept, orders"
