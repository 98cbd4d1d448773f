"""Files of set-up are renewed until they are edited, and written whole or not at all."""

from __future__ import annotations

import pytest

from hub.setup import files
from hub.setup.steps import Found, SetupFailed


def test_ours_is_renewed(tmp_path):
    path = tmp_path / "file"
    assert files.put(path, "old\n", dry=False).found is Found.DUE
    assert path.stat().st_mode & 0o777 == 0o644
    assert files.put(path, "old\n", dry=False).found is Found.RIGHT
    assert files.put(path, "new\n", dry=True).found is Found.DUE
    assert path.read_text().endswith("\nold\n")
    assert files.put(path, "new\n", dry=False).found is Found.DUE
    assert path.read_text().endswith("\nnew\n")


@pytest.mark.parametrize("edit", ["{}more\n", "# a comment first\n{}", "all another's\n", ""])
def test_what_is_edited_is_left_alone(tmp_path, edit):
    path = tmp_path / "file"
    files.put(path, "old\n", dry=False)
    path.write_text(edit.format(path.read_text()))
    before = path.read_text()
    step = files.put(path, "new\n", dry=False)
    assert step.found is Found.EDITED
    assert path.read_text() == before
    line = step.line(dry=False)
    assert line.startswith("kept  ") and f"mv {path} {path}.old, then mep-hub setup" in line


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "target").write_text("mine\n")
    (tmp_path / ".file.new").symlink_to(tmp_path / "target")
    files.put(tmp_path / "file", "new\n", dry=False)
    assert (tmp_path / "target").read_text() == "mine\n"


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(SetupFailed, match="No such file"):
        files.put(tmp_path / "none" / "file", "x\n", dry=False)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SetupFailed, match="cannot be read, IsADirectoryError"):
        files.put(tmp_path / "folder", "x\n", dry=False)
