"""Is it said where tasks can leave their scope?"""

from __future__ import annotations

from pathlib import Path

import pytest

from mep.monitor.containment import containment, user_services
from mep.monitor.containment.containment import Containment


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Where units lie: the administrator's, and the distribution's with both units."""
    made = [tmp_path / "etc", tmp_path / "usr"]
    for folder in made:
        folder.mkdir()
    for unit in ("user@.service", "systemd-logind.service"):
        (made[1] / unit).write_text("[Service]\n")
    return made


def test_users_may_have_a_systemd_of_their_own(folders: list[Path]) -> None:
    told = user_services.note(folders)
    assert "tasks of this user can move themselves out of their scope" in told
    assert "systemctl mask user@.service" in told


@pytest.mark.parametrize("unit", ["user@.service", "systemd-logind.service"])
@pytest.mark.parametrize("how", ["link", "empty", "missing"])
def test_they_have_none_where_it_cannot_run(folders: list[Path], unit: str, how: str) -> None:
    if how == "link":
        (folders[0] / unit).symlink_to("/dev/null")
    elif how == "empty":
        (folders[0] / unit).touch()
    else:
        (folders[1] / unit).unlink()
    assert user_services.note(folders) == ""


def test_without_systemd_there_is_nothing_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_services, "note", lambda: "told")
    for runs in (True, False):
        monkeypatch.setattr(containment, "available", lambda runs=runs: runs)
        one = Containment("prod")
        assert one.note() == ("told" if runs else "")
        one.close()
