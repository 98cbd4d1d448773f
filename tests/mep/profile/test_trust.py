from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from mep.profile import trust


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
    with pytest.raises(trust.Untrusted, match=f"chmod go-w {file}$"):
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


def test_what_a_link_leads_back_out_of_counts_too(file: Path, tmp_path: Path) -> None:
    """`link/..` is the parent of where the link leads, not of the link."""
    (tmp_path / "link").symlink_to(file.parent)
    trust.check(tmp_path / "link" / ".." / "folder" / "file")
    file.parent.chmod(0o777)
    with pytest.raises(trust.Untrusted):
        trust.check(tmp_path / "link" / ".." / "folder" / "file")


def test_a_link_of_somebody_else_is_refused_wherever_it_leads(file: Path, tmp_path: Path, root: None) -> None:
    link = tmp_path / "link"
    link.symlink_to(file.parent)
    trust.check(link / "file")
    os.chown(link, 65534, -1, follow_symlinks=False)
    with pytest.raises(trust.Untrusted, match=f"chown -h root {link}$"):
        trust.check(link / "file")


def test_a_sticky_folder_protects_only_what_is_root_s(file: Path, root: None) -> None:
    file.parent.chmod(0o1777)
    link = file.parent / "link"
    link.symlink_to(file)
    os.chown(link, 65534, -1, follow_symlinks=False)
    with pytest.raises(trust.Untrusted, match=f"chown -h root {link}$"):
        trust.check(link)


def test_a_sticky_folder_of_somebody_else_is_refused(file: Path, root: None) -> None:
    """Its owner may replace what is in it."""
    file.parent.chmod(0o1777)
    os.chown(file.parent, 65534, -1)
    with pytest.raises(trust.Untrusted, match=f"chown root {file.parent}$"):
        trust.check(file)


def test_the_sticky_bit_of_a_file_means_nothing(file: Path) -> None:
    file.chmod(0o1666)
    with pytest.raises(trust.Untrusted, match=f"chmod go-w {file}$"):
        trust.check(file)


def test_the_command_can_be_copied_whatever_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a b; c"
    path.touch()
    path.chmod(0o666)
    with pytest.raises(trust.Untrusted, match=f"chmod go-w '{path}'$"):
        trust.check(path)


OTHERS_WRITE = "import os, sys; from mep.profile import trust; print(trust.others_write(os.stat(sys.argv[1])))"


def test_the_group_of_an_ordinary_user_is_trusted_while_it_is_for_them_alone(tmp_path: Path, root: None) -> None:
    """A member of it, and who has it as primary group, may write where it may."""

    def others_write(owner: LocalAccount) -> bool:
        become = ["setpriv", f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups", "--"]
        command = [*become, sys.executable, "-c", OTHERS_WRITE, owner.home / "shared"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        return {"True\n": True, "False\n": False}[done.stdout]

    with LocalAccount("meptrust_a") as owner:
        (owner.home / "shared").mkdir()
        os.chown(owner.home / "shared", owner.uid, owner.gid)
        (owner.home / "shared").chmod(0o770)
        assert not others_write(owner)
        with LocalAccount("meptrust_b", arguments=("--gid", owner.name)):
            assert others_write(owner), "it is another account's primary group"
        with LocalAccount("meptrust_b", arguments=("--groups", owner.name)):
            assert others_write(owner), "another account is a member"
        assert not others_write(owner)
