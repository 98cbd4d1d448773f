"""Counts tasks sent and results received, and the functions that are counted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.uep.program import Uep
from tests.uep.service import Service
from wire import messages

MANY = 300
STOPPED = "endpoint stopped before this task was finished"


def work(folder, n):
    """Leaves a mark for each time that it runs."""
    import os
    import time

    with open(f"{folder}/{n}", "a") as mark:
        mark.write(f"{os.getpid()}\n")
    time.sleep(0.01)
    return n


def work_for_a_while(folder, n):
    import time
    from decimal import Decimal

    with open(f"{folder}/{n}", "a") as mark:
        mark.write("ran\n")
    time.sleep(3)
    return Decimal(f"{n}.{'0' * 5000}")  # equal to n, and more than a page of the disk


def work_for_longer(folder, n):
    import time

    with open(f"{folder}/{n}", "a") as mark:
        mark.write("ran\n")
    time.sleep(8)
    return n


def work_long(folder, n):
    import os
    import time

    with open(f"{folder}/{n}", "a") as mark:
        mark.write(f"{os.getpid()}\n")
    time.sleep(300)


class Tally:
    """Tasks sent, and all results that came for each."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self.sent: dict[str, int] = {}
        self.got: dict[str, list[messages.Result]] = {}
        folder.mkdir()

    def send(self, count: int, function: Callable[..., Any] = work, through: Service | None = None) -> list[str]:
        """Sends tasks, and returns when the broker has them on its disk."""
        service = through or self.service
        if not service.channel._delivery_confirmation:
            service.channel.confirm_delivery()
        tasks = []
        for _ in range(count):
            number = len(self.sent)
            tasks.append(service.send_buffer(service.pack(function, str(self.folder), number)))
            self.sent[tasks[-1]] = number
        return tasks

    def receive(self, count: int, timeout: float = 60) -> None:
        """Waits until there are results of `count` tasks."""
        deadline = time.monotonic() + timeout
        while len(self.got) < count:
            self._add(self.service.result(max(0.1, deadline - time.monotonic())))

    def settle(self) -> None:
        """Waits for the results of all tasks, and whether more come than that."""
        self.receive(len(self.sent))
        self.receive_what_is_there(1)

    def receive_what_is_there(self, patience: float = 0.05) -> None:
        """Until nothing has come for so many seconds."""
        with contextlib.suppress(AssertionError):
            while True:
                self._add(self.service.result(patience))

    def errors(self) -> dict[str, str]:
        """The text of each error by task. What came for a task more than once must be the same."""
        assert self.got.keys() == self.sent.keys()
        for task_id, results in self.got.items():
            assert len({result.data for result in results}) == 1, [r.data for r in results]
            if results[0].error_details is None:
                assert self.service.value(results[0]) == self.sent[task_id]
        return {task_id: r[0].data for task_id, r in self.got.items() if r[0].error_details is not None}

    def runs(self) -> list[int]:
        """How often each task ran that ran at all."""
        return [len(mark.read_text().splitlines()) for mark in self.folder.iterdir()]

    def _add(self, result: messages.Result) -> None:
        self.got.setdefault(result.task_id, []).append(result)


def lives(uep: Uep) -> int:
    """How many endpoints have taken tasks so far; they share a log."""
    return uep.log.read_text().count("taking tasks")
