from __future__ import annotations

import os
from pathlib import Path

import pytest

from mep.monitor import run_lock


def test_one_manager_at_a_time(tmp_path: Path) -> None:
    assert run_lock.holder(tmp_path) is None
    assert run_lock.stop(tmp_path) is False
    with run_lock.hold(tmp_path):
        assert run_lock.holder(tmp_path) == os.getpid()
        with pytest.raises(run_lock.AlreadyRunning) as caught, run_lock.hold(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
    assert run_lock.holder(tmp_path) is None


def test_a_stale_lock_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "manager.pid").write_text("1\n")
    assert run_lock.holder(tmp_path) is None
    with run_lock.hold(tmp_path):
        assert run_lock.holder(tmp_path) == os.getpid()
