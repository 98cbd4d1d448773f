"""An endpoint that runs in the process of the tests, where its constants can be changed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.uep.program import THREADS
from tests.uep.service import Service
from uep import config, endpoint
from uep.engines.base import EngineContext
from uep.engines.registry import make_engine
from uep.handover import HandOver


async def run_endpoint(
    directory: Path, service: Service, credentials: dict[str, Any] | None = None, configuration: str = THREADS
) -> int:
    """Runs an endpoint that keeps its files in `directory`; its exit code."""
    handed = HandOver(service.endpoint_id, credentials or service.credentials(), configuration)
    settings = config.parse(configuration)
    engine = make_engine(settings.engine, EngineContext(service.endpoint_id, directory))
    return await endpoint.Endpoint("uep.test", handed, settings, engine).run()


def play_with_endpoint(
    play: Callable[[], None],
    directory: Path,
    service: Service,
    credentials: dict[str, Any],
    configuration: str = THREADS,
) -> None:
    """Calls `play` in a thread while an endpoint runs."""

    async def run() -> None:
        directory.mkdir()
        running = asyncio.ensure_future(run_endpoint(directory, service, credentials, configuration))
        try:
            await asyncio.to_thread(play)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            assert await running == 0

    before = os.getcwd(), dict(os.environ)
    try:
        asyncio.run(run())
    finally:
        os.chdir(before[0])
        os.environ.clear()
        os.environ.update(before[1])
