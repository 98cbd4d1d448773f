"""Opens what the endpoint keeps on disk, and finds what an earlier endpoint of the same name has left there.

`preparation` calls `open_storage` once, when the directory is locked, and in a thread: there may be gigabytes to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uep.storage.journal import Journal
from uep.storage.result_store import ResultStore


@dataclass(frozen=True, slots=True)
class Storage:
    """`interrupted` are the tasks that an earlier endpoint has accepted, and of which there is no result."""

    journal: Journal
    results: ResultStore
    interrupted: tuple[str, ...]


def open_storage(directory: Path) -> Storage:
    """Opens journal and results in the endpoint's `directory`, or makes them; crosses out what has been confirmed.

    Raises:
        OSError: the directory cannot be used.
    """
    journal = Journal(directory / "open_tasks")
    results = ResultStore(directory / "unacked_results", journal.sync)
    journal.finish(journal.leftover & results.confirmed)  # a crash of the machine has undone what was noted
    kept = frozenset(results.ids())
    interrupted = tuple(task_id for task_id in journal.leftover if task_id in journal and task_id not in kept)
    return Storage(journal, results, interrupted)
