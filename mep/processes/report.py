"""Waits in the event loop for the report of a child between fork and exec (see `privileged.launch`).

In the monitor: `monitor.endpoints.spawn` waits here for user endpoints, `supervised` for all other processes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from mep.privileged.launch import HELD, LaunchFailure
from mep.privileged.launch import read_report as decode_report


async def held(report: int) -> LaunchFailure | None:
    """Waits until a child that is to be held waits at the gate. A failure when it has not come so far."""
    data = await _read(report, lambda data: data.startswith(HELD))
    if data.startswith(HELD):
        return None
    return decode_report(data) or LaunchFailure("gate", 0, "ended before it; killed?")


async def executed(report: int) -> LaunchFailure | None:
    """Waits until a child's program has been executed; a failure when a step before has failed."""
    return decode_report(await _read(report, lambda _: False))


async def read_report(report: int) -> LaunchFailure | None:
    """The same for a child that is not held, and closes `report`."""
    try:
        return await executed(report)
    finally:
        os.close(report)


async def _read(report: int, enough: Callable[[bytes], bool]) -> bytes:
    """What comes until it is enough, or ends."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    data = b""

    def read() -> None:
        nonlocal data
        chunk = os.read(report, 4096)
        data += chunk
        if not chunk or enough(data):
            loop.remove_reader(report)
            if not finished.done():
                finished.set_result(None)

    loop.add_reader(report, read)
    try:
        await finished
    finally:
        loop.remove_reader(report)
    return data
