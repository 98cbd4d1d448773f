from __future__ import annotations

import os
from pathlib import Path

import pytest

from mep.profile import programs


def test_a_program_that_users_can_execute() -> None:
    assert programs.obstacle(Path("/bin/sh")) is None


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
    assert programs.obstacle(program) is None
    program.parent.chmod(0o700)
    assert f"{program.parent} has mode 0700" in str(programs.obstacle(program))


def test_a_closed_program_is_found(program: Path) -> None:
    program.chmod(0o700)
    assert "chmod a+rx" in str(programs.obstacle(program))


def test_a_closed_interpreter_is_found(program: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "closed" / "python"
    interpreter.parent.mkdir(mode=0o700)
    interpreter.symlink_to("/bin/sh")
    program.write_text(f"#!{interpreter}\n")
    assert str(interpreter) in str(programs.obstacle(program))


def test_a_missing_program_is_found(tmp_path: Path) -> None:
    assert "No such file" in str(programs.obstacle(tmp_path / "no"))
