from __future__ import annotations

import asyncio
import errno
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uep.storage import result_store
from uep.storage.group_commit import GroupCommit
from uep.storage.result_store import HEADER, ResultStore

A, B, C = (str(uuid.uuid4()) for _ in range(3))


def everything(store: ResultStore) -> list[tuple[str, bytes]]:
    return [(task_id, store.get(task_id)) for task_id in store.ids()]


def files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_kept_until_discarded(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "r")
    store.put([(A, b"one")])
    store.put([(B, b"two\n"), (C, b"")])
    again = ResultStore(tmp_path / "r")
    assert everything(store) == everything(again) == [(A, b"one"), (B, b"two\n"), (C, b"")]
    assert again.size == store.size == sum(p.stat().st_size for p in (tmp_path / "r").iterdir())
    again.discard([A, A])
    assert again.ids() == ResultStore(tmp_path / "r").ids() == [B, C]
    with pytest.raises(FileNotFoundError):
        again.get(A)


def test_a_file_is_written_again_once_it_is_long_and_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind the end is from before: it must not come back, though it is whole."""
    monkeypatch.setattr(result_store, "LONG_ENOUGH", 3 * (HEADER + 3))
    store = ResultStore(tmp_path)
    store.put([(A, b"one"), (B, b"two"), (C, b"tri")])
    crash = (tmp_path / files(tmp_path)[0]).read_bytes()
    store.discard([A, B, C])
    assert store.size == len(crash)
    store.put([(A, b"new")])
    assert (files(tmp_path), store.size) == (["000000001"], HEADER + 3)
    assert everything(store) == everything(ResultStore(tmp_path)) == [(A, b"new")]
    # The marks of what is confirmed are not synced: all three others may be there again, and still are not results.
    with (tmp_path / "000000001").open("r+b") as file:
        file.seek(HEADER + 3)
        file.write(crash[HEADER + 3 :])
    assert everything(ResultStore(tmp_path)) == [(A, b"new")]


def test_a_file_that_has_become_long_does_not_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_store, "LONG_ENOUGH", 1000)
    store = ResultStore(tmp_path)
    store.put([(A, b"x" * 100_000)])
    store.discard([A])
    store.put([(B, b"y")])
    assert (tmp_path / "000000001").stat().st_size == 1000


def test_files_go_with_the_last_of_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_store, "TOO_LONG", 2 * HEADER)
    store = ResultStore(tmp_path)
    store.put([(A, b"one"), (B, b"two")])
    store.put([(C, b"in another file")])
    assert files(tmp_path) == ["000000001", "000000002"]
    store.discard([A])
    assert (files(tmp_path), everything(store)) == (["000000001", "000000002"], [(B, b"two"), (C, b"in another file")])
    store.discard([B])
    assert (files(tmp_path), everything(store)) == (["000000002"], [(C, b"in another file")])
    again = ResultStore(tmp_path)
    again.discard([C])
    assert (files(tmp_path), again.size, len(again)) == ([], 0, 0)


def test_confirmed_results_stay_readable_until_others_know_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_store, "LONG_ENOUGH", HEADER)
    seen: list[set[str]] = []

    def store() -> ResultStore:
        return ResultStore(tmp_path, lambda: seen.append(ResultStore(tmp_path).confirmed))

    first = store()
    first.put([(A, b"one"), (B, b"two")])
    first.discard([A])
    assert (store().confirmed, seen) == ({A}, [])
    first.discard([B])
    first.put([(C, b"written over the others")])
    assert seen == [{A, B}]
    second = store()
    second.discard([C])
    second.put([(A, b"another file")])
    assert seen == [{A, B}, {C}]
    assert (files(tmp_path), second.ids()) == (["000000002"], [A])


def test_a_later_result_replaces_the_earlier(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.put([(A, b"one")])
    store.put([(A, b"other")])
    assert everything(ResultStore(tmp_path)) == [(A, b"other")]
    again = ResultStore(tmp_path)
    again.put([(A, b"third")])
    assert everything(again) == everything(ResultStore(tmp_path)) == [(A, b"third")]


def test_private(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o755)
    ResultStore(tmp_path / "r").put([(A, b"x")])
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r" / "000000001").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keep", range(0, 2 * HEADER + 8, 7))
def test_torn_file(tmp_path: Path, keep: int) -> None:
    """A crash leaves any part of what was not synced: what is whole counts."""
    ResultStore(tmp_path).put([(A, b"whole"), (B, b"two")])
    os.truncate(tmp_path / "000000001", keep)
    assert ResultStore(tmp_path).ids() == [A][: keep // (HEADER + 5)]


@given(at=st.integers(0, 2 * HEADER + 7), byte=st.integers(0, 255))
def test_damaged_file(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    """No byte makes a wrong result of a right one."""
    directory = tmp_path_factory.mktemp("r")
    ResultStore(directory).put([(A, b"whole"), (B, b"two")])
    with (directory / "000000001").open("r+b") as file:
        file.seek(at)
        file.write(bytes([byte]))
    assert set(everything(ResultStore(directory))) <= {(A, b"whole"), (B, b"two")}


def test_foreign_files_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README").write_text("not ours")
    (tmp_path / "17").write_bytes(b"+ rubbish")
    store = ResultStore(tmp_path)
    assert store.ids() == []
    store.put([(A, b"one")])
    assert files(tmp_path) == ["000000018", "README"]
    assert "file 17 among the kept results is damaged" in caplog.text


def test_a_file_that_somebody_removed(tmp_path: Path) -> None:
    """What was in it can still be sent; what comes is written where the next endpoint finds it."""
    store = ResultStore(tmp_path)
    store.put([(A, b"one")])
    (tmp_path / "000000001").unlink()
    store.put([(B, b"two")])
    assert everything(store) == [(A, b"one"), (B, b"two")]
    assert everything(ResultStore(tmp_path)) == [(B, b"two")]
    store.discard([A, B])
    assert (store.ids(), files(tmp_path)) == ([], ["000000002"])


def test_a_file_that_somebody_cut(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.put([(A, b"one")])
    os.truncate(tmp_path / "000000001", HEADER + 1)
    with pytest.raises(FileNotFoundError):
        store.get(A)


def test_synced_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synced = ResultStore(tmp_path), []
    for name, real in {name: getattr(os, name) for name in ("fsync", "fdatasync")}.items():

        def sync(fd: int, real: Callable[[int], None] = real) -> None:
            synced.append((os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size if store.ids() else 0))
            real(fd)

        monkeypatch.setattr(os, name, sync)
    store.put([(A, b"one"), (B, b"two")])
    assert [name for name, _ in synced] == [str(tmp_path), str(tmp_path / "000000001")]
    synced.clear()
    store.put([(C, b"tri")])
    assert synced == [(str(tmp_path / "000000001"), 3 * (HEADER + 3))]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = ResultStore(tmp_path), os.pwrite
    store.put([(A, b"one")])

    def full(fd: int, content: memoryview, offset: int) -> int:
        if offset > HEADER + 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, content[:10], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        store.put([(B, b"two"), (C, b"tri")])
    assert everything(store) == everything(ResultStore(tmp_path)) == [(A, b"one")]
    monkeypatch.undo()
    store.put([(C, b"tri")])
    assert everything(store) == everything(ResultStore(tmp_path)) == [(A, b"one"), (C, b"tri")]


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

        disk = GroupCommit("disk", work, done)
        for n in range(6):
            disk.add(n)
        go_on.set()
        await asyncio.wait_for(all_done.wait(), 10)
        assert await disk.run(threading.get_ident) != threading.get_ident()
        return groups

    assert asyncio.run(run()) == [[0], [1, 2, 3, 4, 5]]
