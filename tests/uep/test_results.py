from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from uep.results import ResultStore


def test_kept_until_discarded(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "r")
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    store.put(first, b"one")
    os.utime(tmp_path / "r" / first, (1, 1))
    store.put(second, b"two")
    again = ResultStore(tmp_path / "r")
    assert list(again.items()) == [(first, b"one"), (second, b"two")]
    again.discard(first)
    again.discard(first)
    assert again.ids() == [second]


def test_private(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o755)
    ResultStore(tmp_path / "r").put(task := str(uuid.uuid4()), b"x")
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r" / task).stat().st_mode & 0o777 == 0o600


def test_torn_and_foreign_files_are_no_results(tmp_path: Path) -> None:
    torn = tmp_path / f".{uuid.uuid4()}.new"
    torn.write_bytes(b"half")
    (tmp_path / "README").write_text("not ours")
    assert ResultStore(tmp_path).ids() == []
    assert not torn.exists()
    assert (tmp_path / "README").exists()


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").touch()
    with pytest.raises(OSError, match="directory"):
        store.put("x", b"a directory is in the way")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]
