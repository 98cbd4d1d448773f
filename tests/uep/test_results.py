from __future__ import annotations

import asyncio
import os
import threading
import uuid
from pathlib import Path

import pytest

from uep.grouped import Grouped
from uep.results import ResultStore

A, B, C = (str(uuid.uuid4()) for _ in range(3))


def everything(store: ResultStore) -> list[tuple[str, bytes]]:
    return [(task_id, store.get(task_id)) for task_id in store.ids()]


def test_kept_until_discarded(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "r")
    store.put([(A, b"one")])
    os.utime(tmp_path / "r" / A, (1, 1))
    store.put([(B, b"two\n"), (C, b"")])
    again = ResultStore(tmp_path / "r")
    assert everything(store) == everything(again) == [(A, b"one"), (B, b"two\n"), (C, b"")]
    assert again.size == store.size == sum(p.stat().st_size for p in (tmp_path / "r").iterdir())
    again.discard([A, A])
    assert again.ids() == [B, C]
    with pytest.raises(FileNotFoundError):
        again.get(A)


def test_a_file_goes_with_the_last_of_its_results(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.put([(A, b"one"), (B, b"two")])
    store.discard([A])
    assert (store.ids(), store.get(B)) == ([B], b"two")
    store.put([(A, b"in another file, whose name is taken")])
    assert len(list(tmp_path.iterdir())) == 2
    store.discard([B, A])
    assert (list(tmp_path.iterdir()), store.size, len(store)) == ([], 0, 0)


def test_a_later_result_replaces_the_earlier(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.put([(A, b"one")])
    store.put([(A, b"other")])
    assert everything(ResultStore(tmp_path)) == [(A, b"other")]


def test_private(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o755)
    ResultStore(tmp_path / "r").put([(A, b"x")])
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r" / A).stat().st_mode & 0o777 == 0o600


def test_torn_damaged_and_foreign_files_are_no_results(tmp_path: Path) -> None:
    torn = tmp_path / f".{A}.new"
    torn.write_bytes(b"half")
    (tmp_path / "README").write_text("not ours")
    ResultStore(tmp_path).put([(B, b"whole"), (C, b"cut short")])
    os.truncate(tmp_path / B, (tmp_path / B).stat().st_size - 1)
    (tmp_path / str(uuid.uuid4())).write_bytes(b"\x01 rubbish")
    assert everything(ResultStore(tmp_path)) == [(B, b"whole")]
    assert not torn.exists()
    assert (tmp_path / "README").exists()


def test_a_file_that_somebody_removed(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.put([(A, b"one")])
    (tmp_path / A).unlink()
    with pytest.raises(FileNotFoundError):
        store.get(A)
    store.discard([A])
    assert store.size == 0


def test_synced_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synced, real = ResultStore(tmp_path), [], os.fsync

    def fsync(fd: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), sorted(p.name for p in tmp_path.iterdir())))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store.put([(A, b"one"), (B, b"two")])
    assert synced == [(str(tmp_path / f".{A}.new"), [f".{A}.new"]), (str(tmp_path), [A])]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    (tmp_path / A / "y").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        store.put([(A, b"a directory is in the way")])
    assert [p.name for p in tmp_path.iterdir()] == [A]
    assert (store.ids(), store.size) == ([], 0)


def test_what_comes_meanwhile_is_done_together() -> None:
    async def run() -> list[list[int]]:
        groups, go_on, all_done = [], threading.Event(), asyncio.Event()

        def work(things: list[int]) -> int:
            assert threading.current_thread() is not threading.main_thread()
            go_on.wait(10)
            return sum(things)

        def done(things: list[int], outcome: int) -> None:
            assert outcome == sum(things)
            groups.append(things)
            if 5 in things:
                all_done.set()

        disk = Grouped("disk", work, done)
        for n in range(6):
            disk.add(n)
        go_on.set()
        await asyncio.wait_for(all_done.wait(), 10)
        assert await disk.run(threading.get_ident) != threading.get_ident()
        return groups

    assert asyncio.run(run()) == [[0], [1, 2, 3, 4, 5]]
