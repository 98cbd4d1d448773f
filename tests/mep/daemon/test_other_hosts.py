"""Hosts that share a home. Here each is a folder, as it is to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mep.daemon.other_hosts import forget_other_boots, running_on
from mep.monitor import run_lock
from mep.profile.paths import Paths


def boots(config: Path, run: Path | None = None) -> Paths:
    """Paths of an ordinary user; and beside the folder of this boot those of two earlier ones, and another's."""
    found = Paths(config, config, run or config / ".run" / "login-1-0a1b2c3d", None)
    for name in ("0a1b2c3d", "11111111", "22222222"):
        (found.run.parent / f"login-1-{name}" / "mine").mkdir(parents=True, exist_ok=True)
    (found.run.parent / "login-2-11111111").mkdir()
    return found


def test_what_earlier_boots_of_this_host_have_left_is_removed(tmp_path: Path) -> None:
    forget_other_boots(boots(tmp_path))
    assert sorted(path.name for path in (tmp_path / ".run").iterdir()) == ["login-1-0a1b2c3d", "login-2-11111111"]


def test_what_lies_beside_a_folder_that_a_variable_names_is_not_ours(tmp_path: Path) -> None:
    paths = boots(tmp_path, tmp_path / "project" / "login-1-run")
    before = sorted(paths.run.parent.rglob("*"))
    forget_other_boots(paths)
    assert sorted(paths.run.parent.rglob("*")) == before


def test_a_host_of_the_same_name_keeps_its_managers_folder(tmp_path: Path) -> None:
    """A home can be shared by clusters that each have a `login-1`."""
    paths = boots(tmp_path)
    held = tmp_path / ".run" / "login-1-22222222"
    with run_lock.hold(held / "mine"):
        forget_other_boots(paths)
    assert (held / "mine").is_dir()
    assert not (tmp_path / ".run" / "login-1-11111111").exists()


@pytest.mark.parametrize("other", ["login-2-11111111", "login-1-22222222"])
def test_a_manager_on_another_host_is_seen(tmp_path: Path, other: str) -> None:
    """Or on one of the same name, as two clusters may have that share a home."""
    paths = boots(tmp_path)
    host = other.rpartition("-")[0]
    with run_lock.hold(paths.run / "mine"):
        assert running_on(paths, "mine") == "", "it is ours"
        with run_lock.hold(paths.own_runs / other / "mine"):
            assert running_on(paths, "mine").startswith(f"runs on host {host}: stop it there")
            assert running_on(paths, "another") == ""
        assert running_on(paths, "mine") == "", "it has ended"


def test_what_no_manager_has_made_there_keeps_nobody_from_starting(tmp_path: Path) -> None:
    paths = boots(tmp_path)
    (paths.own_runs / "a file").touch()
    (paths.own_runs / "login-2-11111111" / "mine" / "manager.pid").mkdir(parents=True)
    assert running_on(paths, "mine") == ""


def test_where_nothing_is_shared_there_is_no_other_host(tmp_path: Path) -> None:
    paths = boots(tmp_path, tmp_path / "run")
    with run_lock.hold(paths.own_runs / "login-2-11111111" / "mine"):
        assert running_on(paths, "mine") == ""
