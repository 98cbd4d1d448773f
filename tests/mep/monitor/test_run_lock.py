from __future__ import annotations

import os
from pathlib import Path

import pytest

from mep.monitor import run_lock as runlock


def test_one_manager_at_a_time(tmp_path: Path) -> None:
    assert runlock.holder(tmp_path) is None
    assert runlock.stop(tmp_path) is False
    with runlock.hold(tmp_path):
        assert runlock.holder(tmp_path) == os.getpid()
        with pytest.raises(runlock.AlreadyRunning) as caught, runlock.hold(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
    assert runlock.holder(tmp_path) is None


def test_a_stale_lock_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "manager.pid").write_text("1\n")
    assert runlock.holder(tmp_path) is None
    with runlock.hold(tmp_path):
        assert runlock.holder(tmp_path) == os.getpid()
