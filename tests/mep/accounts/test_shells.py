"""Which shells are login shells, on this system and with other lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from mep.accounts import look_up, shells
from mep.daemon import known_names
from mep.profile.sections.accounts import AccountPolicy
from mep.request.account import ShellFault


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made = [tmp_path / "shells", tmp_path / "usr_shells"]
    monkeypatch.setattr(shells, "LISTS", tuple(made))
    return made


@pytest.fixture
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("meptest_shells") as made:
        yield made


@pytest.mark.parametrize(
    ("shell", "fault"),
    [
        ("/bin/bash", None),
        ("/bin/sh", None),
        ("", None),
        ("/dev/null", ShellFault.UNLISTED),
        ("/usr/local/sbin/nologin", ShellFault.UNLISTED),
        ("/usr/bin/git-shell", ShellFault.UNLISTED),
        ("/bin/sync", ShellFault.UNLISTED),
        ("/no/such/shell", ShellFault.UNLISTED),
    ],
)
def test_an_account_of_this_system(account: LocalAccount, shell: str, fault: ShellFault | None) -> None:
    account.change("usermod", "--shell", shell)
    found = look_up.account(account.name)
    assert found is not None
    assert (found.shell, found.shell_fault) == (shell, fault)


def test_a_listed_shell_must_be_a_program(lists: list[Path], tmp_path: Path) -> None:
    program, text = tmp_path / "program", tmp_path / "text"
    program.touch(mode=0o755)
    text.touch(mode=0o644)
    lists[0].write_text(f"{program}\n{text}\n{tmp_path}\n{tmp_path}/none\n")
    assert shells.fault(str(program)) is None
    for other in (text, tmp_path, tmp_path / "none"):
        assert shells.fault(str(other)) is ShellFault.UNUSABLE


def test_lines_are_read_as_getusershell_does(lists: list[Path]) -> None:
    lists[0].write_text("# /bin/comment\n\n  /bin/one  \n/bin/two # and why\n/bin/three#\nnone\n")
    assert shells.listed() == {"/bin/one", "/bin/two", "/bin/three"}


def test_check_says_who_is_kept_out(account: LocalAccount, lists: list[Path]) -> None:
    policy = AccountPolicy(allow_users=(account.name,))
    lists[0].write_text("/bin/bash\n")
    assert known_names.notes(policy) == []
    lists[0].write_text("/bin/zsh\n")
    (note,) = known_names.notes(policy)
    assert f"{account.name!r} has the shell '/bin/bash'" in note
    lists[0].unlink()
    assert "only accounts with /bin/csh and /bin/sh" in known_names.notes(policy)[0]
    assert known_names.notes(AccountPolicy(allow_users=(account.name,), allow_nologin=True)) == []


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_without_a_list(lists: list[Path], text: str | None) -> None:
    if text is not None:
        lists[0].write_text(text)
    assert shells.listed() == {"/bin/sh", "/bin/csh"}


def test_a_distribution_s_list_counts_where_the_admin_has_none(lists: list[Path]) -> None:
    lists[1].write_text("/bin/zsh\n")
    assert shells.listed() == {"/bin/zsh"}
    lists[0].write_text("/bin/bash\n")
    assert shells.listed() == {"/bin/bash"}
