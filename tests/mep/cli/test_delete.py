"""What `mep delete` does not take for a profile of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.cli.common import choose_paths
from mep.cli.delete import delete
from mep.daemon.failed import Failed


@pytest.fixture(autouse=True)
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of profiles, as with --config-dir; taken back afterwards."""
    monkeypatch.setenv("MEP_RUN_DIR", str(tmp_path / "run"))
    folder = tmp_path / "profiles"
    folder.mkdir()
    choose_paths(folder)
    yield folder
    choose_paths(None)


def test_a_folder_that_is_no_profile_stays(chosen: Path) -> None:
    """Certificates of a site, or a user endpoint's folder in its home."""
    (chosen / "certs").mkdir()
    (chosen / "certs" / "ca.pem").touch()
    with pytest.raises(Failed, match="there is no profile in it") as caught:
        delete("certs", force=True, yes=True)
    assert caught.value.exit_code == os.EX_CONFIG
    assert (chosen / "certs" / "ca.pem").exists()


def test_a_link_is_refused_before_anything_is_deleted(chosen: Path, tmp_path: Path) -> None:
    elsewhere, kept = tmp_path / "elsewhere", chosen / "user-endpoints" / "prod"
    elsewhere.mkdir()
    (elsewhere / "config.yaml").touch()
    (chosen / "prod").symlink_to(elsewhere)
    kept.mkdir(parents=True)
    with pytest.raises(Failed, match=f"is a link to {elsewhere}"):
        delete("prod", force=True, yes=True)
    assert kept.exists()
    assert (elsewhere / "config.yaml").exists()
