from __future__ import annotations

import uuid
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from uep.storage import journal
from uep.storage.journal import Journal

A, B = str(uuid.uuid4()), str(uuid.uuid4())


def test_open_tasks_are_found_by_the_next(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    first.accept([A, B])
    first.finish([A])
    assert A not in first
    assert B in first
    second = Journal(tmp_path / "j")
    assert second.leftover == {B}
    second.finish([B, A])
    assert Journal(tmp_path / "j").leftover == frozenset()
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_torn_line(tmp_path: Path) -> None:
    (tmp_path / "j").write_text(f"+{A}\n+{B[:20]}")
    second = Journal(tmp_path / "j")
    assert second.leftover == {A}
    second.accept([B])
    assert Journal(tmp_path / "j").leftover == {A, B}


@given(st.binary(max_size=200))
def test_any_content(content: bytes) -> None:
    assert all(len(task) == 36 for task in journal._open_tasks(content))


def test_slots_are_used_again(tmp_path: Path) -> None:
    mine = Journal(tmp_path / "j")
    size = (tmp_path / "j").stat().st_size
    mine.accept([B])
    for _ in range(journal.GROWTH + 1):
        mine.accept([A])
        mine.finish([A])
    assert (tmp_path / "j").stat().st_size == size
    mine.accept([A])
    assert Journal(tmp_path / "j").leftover == {A, B}


def test_more_than_were_ever_open(tmp_path: Path) -> None:
    tasks = {str(uuid.uuid4()) for _ in range(journal.GROWTH + 1)}
    mine = Journal(tmp_path / "j")
    mine.accept([A])
    mine.accept(tasks)
    assert len(mine) == len(tasks) + 1
    again = Journal(tmp_path / "j")
    assert again.leftover == tasks | {A}
    again.finish(tasks)
    assert Journal(tmp_path / "j").leftover == {A}


def test_accepted_twice_is_open_once(tmp_path: Path) -> None:
    mine = Journal(tmp_path / "j")
    mine.accept([A])
    mine.accept([A])
    mine.finish([A])
    assert Journal(tmp_path / "j").leftover == frozenset()


def test_an_endpoint_that_has_not_ended_does_not_disturb_its_successor(tmp_path: Path) -> None:
    old = Journal(tmp_path / "j")
    new = Journal(tmp_path / "j")
    new.accept([A])
    old.accept([B])
    assert Journal(tmp_path / "j").leftover == {A}
