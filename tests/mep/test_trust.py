from __future__ import annotations

import os
from pathlib import Path

import pytest

from mep import reach, trust


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    path = folder / "file"
    path.write_text("x")
    path.chmod(0o644)
    return path


def test_a_file_that_only_root_can_change_is_trusted(file: Path) -> None:
    trust.check(file)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_is_not(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(trust.Untrusted, match=f"chmod go-w {file}"):
        trust.check(file)


def test_nor_is_one_in_a_folder_that_others_can_write(file: Path) -> None:
    file.parent.chmod(0o777)
    with pytest.raises(trust.Untrusted, match=f"chmod go-w {file.parent}$"):
        trust.check(file)


def test_the_sticky_bit_keeps_others_from_replacing_it(file: Path) -> None:
    file.parent.chmod(0o1777)
    trust.check(file)


def test_the_owner_counts(file: Path, root: None) -> None:
    os.chown(file, 65534, -1)
    with pytest.raises(trust.Untrusted, match=f"chown root {file}"):
        trust.check(file)


def test_links_are_followed_and_every_part_counts(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "link").symlink_to("../folder/file")
    trust.check(other / "link")
    file.parent.chmod(0o777)
    with pytest.raises(trust.Untrusted, match=str(file.parent)):
        trust.check(other / "link")


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(trust.Untrusted, match="symbolic links"):
        trust.check(tmp_path / "a")


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        trust.check(tmp_path / "no")


def test_a_program_that_users_can_execute() -> None:
    assert reach.obstacle(Path("/bin/sh")) is None


@pytest.fixture
def program(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_closed_folder_is_found(program: Path) -> None:
    assert reach.obstacle(program) is None
    program.parent.chmod(0o700)
    assert f"{program.parent} has mode 0700" in str(reach.obstacle(program))


def test_a_closed_program_is_found(program: Path) -> None:
    program.chmod(0o700)
    assert "chmod a+rx" in str(reach.obstacle(program))


def test_a_closed_interpreter_is_found(program: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "closed" / "python"
    interpreter.parent.mkdir(mode=0o700)
    interpreter.symlink_to("/bin/sh")
    program.write_text(f"#!{interpreter}\n")
    assert str(interpreter) in str(reach.obstacle(program))


def test_a_missing_program_is_found(tmp_path: Path) -> None:
    assert "No such file" in str(reach.obstacle(tmp_path / "no"))
