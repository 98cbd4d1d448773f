from __future__ import annotations

import uuid
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from uep import journal
from uep.journal import Journal

A, B = str(uuid.uuid4()), str(uuid.uuid4())


def test_open_tasks_are_found_by_the_next(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    first.accept(A)
    first.accept(B)
    first.finish(A)
    assert A not in first
    assert B in first
    second = Journal(tmp_path / "j")
    assert second.leftover == {B}
    second.finish(B)
    assert Journal(tmp_path / "j").leftover == frozenset()


def test_torn_line(tmp_path: Path) -> None:
    (tmp_path / "j").write_text(f"+{A}\n+{B[:20]}")
    second = Journal(tmp_path / "j")
    assert second.leftover == {A}
    second.accept(B)
    assert Journal(tmp_path / "j").leftover == {A, B}


@given(st.binary(max_size=200))
def test_any_content(content: bytes) -> None:
    assert all(len(task) == 36 for task in journal._open_tasks(content))


def test_starts_afresh(tmp_path: Path) -> None:
    mine = Journal(tmp_path / "j")
    mine.accept(B)
    for _ in range(journal.GROWN // (2 * journal.LINE) + 1):
        mine.accept(A)
        mine.finish(A)
    assert (tmp_path / "j").stat().st_size < 200
    mine.accept(A)
    assert Journal(tmp_path / "j").leftover == {A, B}
