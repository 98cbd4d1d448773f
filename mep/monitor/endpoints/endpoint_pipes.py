"""What there is to hear of a user endpoint: its words and audit records through pipes, its end through a pidfd.

`table` has one `EndpointPipes` for all of them. Whatever comes is from a user's process: it may be garbage, or have no
end, and then nobody goes on listening, or listens more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from mep.monitor.background import Background
from mep.monitor.endpoints.user_endpoint import UserEndpoint

_WORDS_SIZE = 2**16
"""Bytes: all that a pipe holds, so that no line is read in two parts."""
_RECORD_SIZE = 4096
"""Bytes of an audit record; what is longer comes as several (pipe(2), O_DIRECT)."""
_MOST_RECORDS = 16
"""Audit records that are taken at a time, and the seconds until the next ones are."""
_RECORDS_PAUSE = 0.01
_LAST_RECORDS = 16
"""So many times when its user endpoint has ended; a pipe holds that many."""


@dataclass(frozen=True)
class EndpointPipes:
    """Passes on what is heard, in the event loop.

    word: a line on its pipe; False when that makes no sense. records: what it says about its tasks; once that is on
    record, whether they may go on. unaudited: they may not, or it has closed the pipe for that, or is ending. ended:
    its process has ended, with its pidfd; `finish` comes next.
    """

    word: Callable[[UserEndpoint, bytes], bool]
    records: Callable[[UserEndpoint, list[bytes]], Coroutine[None, None, bool]]
    unaudited: Callable[[UserEndpoint], None]
    ended: Callable[[UserEndpoint, int], None]
    _background: Background = field(default_factory=Background)

    def begin(self, endpoint: UserEndpoint) -> None:
        """Listens from now on."""
        loop = asyncio.get_running_loop()
        if endpoint.pidfd is not None:
            loop.add_reader(endpoint.pidfd, self.ended, endpoint, endpoint.pidfd)
        if endpoint.pipe is not None:
            loop.add_reader(endpoint.pipe, self._hear, endpoint)
        self._expect_records(endpoint)

    def finish(self, endpoint: UserEndpoint) -> None:
        """Hears what its pipes still hold, and listens no longer."""
        self._hear(endpoint)
        for _ in range(_LAST_RECORDS):  # and no more: something that it has left may still write
            if endpoint.audit is not None and _has_more(endpoint.audit):
                self._take_records(endpoint, endpoint.audit)
        self.stop(endpoint)

    def stop(self, endpoint: UserEndpoint) -> None:
        """Listens no longer. The descriptors stay open."""
        loop = asyncio.get_running_loop()
        for descriptor in (endpoint.pidfd, endpoint.pipe, endpoint.audit):
            if descriptor is not None:
                loop.remove_reader(descriptor)

    def _hear(self, endpoint: UserEndpoint) -> None:
        """The pipe has lines, or its end: nobody is left who could write."""
        if endpoint.pipe is None:
            return
        try:
            said = os.read(endpoint.pipe, _WORDS_SIZE)
        except BlockingIOError:
            return
        sense = [self.word(endpoint, word) for word in said.splitlines()]
        if not sense or not all(sense):  # the end, or not our program: no reason to go on listening
            asyncio.get_running_loop().remove_reader(endpoint.pipe)
            os.close(endpoint.pipe)
            endpoint.pipe = None

    def _take_records(self, endpoint: UserEndpoint, audit: int) -> None:
        """The records that wait, each with a read of its own; no more than some, as others want to be heard, too."""
        records: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(records) < _MOST_RECORDS and (record := os.read(audit, _RECORD_SIZE)):
                records.append(record)
        asyncio.get_running_loop().remove_reader(audit)
        if not records:
            os.close(audit)
            endpoint.audit = None
            self.unaudited(endpoint)
            return
        self._background.start(self._go_on(endpoint, self.records(endpoint, records)))

    async def _go_on(self, endpoint: UserEndpoint, recorded: Coroutine[None, None, bool]) -> None:
        """Whoever writes more has to wait, for the disk, too: nobody may fill it at will, or hold up others."""
        if not await recorded and endpoint.audit is not None:  # else it has ended meanwhile
            self.unaudited(endpoint)
        await asyncio.sleep(_RECORDS_PAUSE)
        self._expect_records(endpoint)

    def _expect_records(self, endpoint: UserEndpoint) -> None:
        if endpoint.audit is not None:  # else there is no such pipe, or it has been closed meanwhile
            asyncio.get_running_loop().add_reader(endpoint.audit, self._take_records, endpoint, endpoint.audit)


def _has_more(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
