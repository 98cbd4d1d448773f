"""The folder of a user endpoint under /run: made anew, removed whole, and pipes that hold nobody up."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.monitor.endpoints import run_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "prod" / "uep"


@pytest.fixture
def ends(folder: Path) -> Iterator[tuple[int, int]]:
    """The reading ends of a new folder's pipes."""
    pipe, audit = run_folder.make(folder, audited=True)
    assert audit is not None
    yield pipe, audit
    os.close(pipe)
    os.close(audit)


def test_a_folder_is_removed_whole(folder: Path, ends: tuple[int, int]) -> None:
    (folder / "state.json").write_text("{}")
    run_folder.remove(folder)
    assert not folder.exists()
    run_folder.remove(folder)  # once more is harmless


def test_a_folder_is_made_anew(folder: Path, ends: tuple[int, int]) -> None:
    pipe, audit = run_folder.make(folder, audited=False)
    os.close(pipe)
    assert audit is None
    assert [path.name for path in folder.iterdir()] == ["pipe"], "what was there before is gone"


def test_a_full_pipe_holds_nobody_up(folder: Path, ends: tuple[int, int], no_hang: None) -> None:
    writing = run_folder.pipe_writing_end(folder)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    held = struct.unpack("i", fcntl.ioctl(ends[0], termios.FIONREAD, bytes(4)))[0]
    assert held >= 4096
    os.close(writing)


def test_records_come_one_by_one(folder: Path, ends: tuple[int, int]) -> None:
    """Without ends of lines, as the public package's user endpoint writes them."""
    writing = run_folder.audit_writing_end(folder)
    os.write(writing, b"first record")
    os.write(writing, b"second")
    os.close(writing)
    assert [os.read(ends[1], 4096) for _ in range(3)] == [b"first record", b"second", b""]


def test_nothing_stays_open_when_a_pipe_cannot_be_opened(folder: Path, ends: tuple[int, int]) -> None:
    before = os.listdir("/proc/self/fd")
    (folder / "audit").unlink()
    (folder / "audit").symlink_to("audit")
    (folder / "pipe").unlink()
    with pytest.raises(OSError, match="pipe"):
        run_folder.reading_ends(folder)
    with pytest.raises(OSError, match="audit"):
        run_folder.audit_writing_end(folder)
    assert len(os.listdir("/proc/self/fd")) == len(before)
