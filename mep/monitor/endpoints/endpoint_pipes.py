"""What there is to hear of a user endpoint: its words and audit records through pipes, its end through a pidfd.

`children` has one `Hearing` for all of them. Whatever comes is from a user's process: it may be garbage, or have no
end, and then nobody goes on listening, or listens more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from dataclasses import dataclass

from mep.monitor.endpoints.record import Child

_WORDS_SIZE = 256
_RECORD_SIZE = 4096
"""Bytes of an audit record; what is longer comes as several (pipe(2), O_DIRECT)."""
_MOST_RECORDS = 16
"""Audit records that are taken at a time, and the seconds until the next ones are."""
_RECORDS_PAUSE = 0.01
_LAST_RECORDS = 16
"""So many times when its user endpoint has ended; a pipe holds that many."""


@dataclass(frozen=True)
class Hearing:
    """Passes on what is heard, in the event loop.

    word: a line on its pipe; False when that makes no sense. records: what it says about its tasks. unaudited: it has
    closed the pipe for that, or is ending. ended: its process has ended; `finish` comes next.
    """

    word: Callable[[Child, bytes], bool]
    records: Callable[[Child, list[bytes]], None]
    unaudited: Callable[[Child], None]
    ended: Callable[[Child], None]

    def begin(self, child: Child) -> None:
        """Listens from now on."""
        assert child.pidfd is not None and child.pipe is not None
        loop = asyncio.get_running_loop()
        loop.add_reader(child.pidfd, self.ended, child)
        loop.add_reader(child.pipe, self._hear, child)
        self._expect_records(child)

    def finish(self, child: Child) -> None:
        """Hears what its pipes still hold, and listens no longer."""
        self._hear(child)
        for _ in range(_LAST_RECORDS):  # and no more: something that it has left may still write
            if child.audit is not None and _has_more(child.audit):
                self._take_records(child)
        self.stop(child)

    def stop(self, child: Child) -> None:
        """Listens no longer. The descriptors stay open."""
        loop = asyncio.get_running_loop()
        for descriptor in (child.pidfd, child.pipe, child.audit):
            if descriptor is not None:
                loop.remove_reader(descriptor)

    def _hear(self, child: Child) -> None:
        """The pipe has lines, or its end: nobody is left who could write."""
        if child.pipe is None:
            return
        try:
            said = os.read(child.pipe, _WORDS_SIZE)
        except BlockingIOError:
            return
        sense = [self.word(child, word) for word in said.splitlines()]
        if not sense or not all(sense):  # the end, or not our program: no reason to go on listening
            asyncio.get_running_loop().remove_reader(child.pipe)
            os.close(child.pipe)
            child.pipe = None

    def _take_records(self, child: Child) -> None:
        """The records that wait, each with a read of its own; no more than some, as others want to be heard, too."""
        assert child.audit is not None
        records: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(records) < _MOST_RECORDS and (record := os.read(child.audit, _RECORD_SIZE)):
                records.append(record)
        loop = asyncio.get_running_loop()
        loop.remove_reader(child.audit)
        if not records:
            os.close(child.audit)
            child.audit = None
            self.unaudited(child)
            return
        self.records(child, records)
        # Nobody may fill the disk at will, or hold up others: whoever writes more has to wait.
        loop.call_later(_RECORDS_PAUSE, self._expect_records, child)

    def _expect_records(self, child: Child) -> None:
        if child.audit is not None:  # else there is no such pipe, or it has been closed meanwhile
            asyncio.get_running_loop().add_reader(child.audit, self._take_records, child)


def _has_more(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
