"""What a successor finds of an earlier endpoint."""

from __future__ import annotations

import uuid
from pathlib import Path

from uep.storage.journal import Journal
from uep.storage.opening import open_storage

A, B, C = (str(uuid.UUID(int=n)) for n in (1, 2, 3))


def test_new(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    assert (len(storage.journal), len(storage.results), storage.interrupted) == (0, 0, ())


def test_tasks_without_a_result_were_interrupted(tmp_path: Path) -> None:
    before = open_storage(tmp_path)
    before.journal.accept([A, B, C])
    before.results.put([(B, b"two")])
    storage = open_storage(tmp_path)
    assert set(storage.interrupted) == {A, C}
    assert storage.results.ids() == [B]
    assert B in storage.journal, "until the broker has its result"


def test_a_confirmed_task_that_a_crash_has_opened_again_is_crossed_out(tmp_path: Path) -> None:
    before = open_storage(tmp_path)
    before.journal.accept([A])
    before.results.put([(A, b"one"), (B, b"two")])
    before.results.discard([A])  # not crossed out: that had not reached the disk
    storage = open_storage(tmp_path)
    assert (storage.interrupted, A in storage.journal) == ((), False)
    assert A not in Journal(tmp_path / "open_tasks")
