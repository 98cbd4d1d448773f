"""Waits in the event loop for the report of a child between fork and exec (see `privileged.launch`).

`spawn` and `renderer` start programs; both wait for them here.
"""

from __future__ import annotations

import asyncio
import os

from mep.privileged.launch import LaunchFailure
from mep.privileged.launch import read_report as decode_report


async def read_report(report: int) -> LaunchFailure | None:
    """Waits for a child's report (see `launch`) without holding up the loop, and closes it."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    data = b""

    def read() -> None:
        nonlocal data
        chunk = os.read(report, 4096)
        data += chunk
        if not chunk:
            loop.remove_reader(report)
            if not finished.done():
                finished.set_result(None)

    loop.add_reader(report, read)
    try:
        await finished
    finally:
        loop.remove_reader(report)
        os.close(report)
    return decode_report(data)
