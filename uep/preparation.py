"""Prepares an endpoint, once, between its check-in and its first task, and says why that failed.

`endpoint` calls `prepare` as soon as the service knows the endpoint. Everything that may wait is done in the engine's
thread: heartbeats go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import Executor
from typing import NamedTuple

from uep.config import ConfigError, EndpointConfig
from uep.engines.base import Engine
from uep.storage.directory_lock import DirectoryInUse, lock_directory
from uep.storage.opening import Storage, open_storage

log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """Why an endpoint cannot work: its exit code, and the text for the user."""

    code: int
    text: str


async def prepare(config: EndpointConfig, engine: Engine, thread: Executor) -> Storage:
    """Locks the directory, runs `endpoint_setup`, starts the engine and opens the storage; slow steps in `thread`.

    Raises:
        Exception: one that `failure` explains.
    """
    loop = asyncio.get_running_loop()
    await lock_directory(engine.context.directory, thread)
    if config.endpoint_setup:
        await run_command("endpoint_setup", config.endpoint_setup)
    await loop.run_in_executor(thread, engine.start)
    log.info("%s started", engine.name)
    return await loop.run_in_executor(thread, open_storage, engine.context.directory)


def failure(error: Exception, engine: Engine) -> Failure:
    """Says what `error`, raised by `prepare`, means for the process and for the user."""
    if isinstance(error, ConfigError):
        return Failure(os.EX_CONFIG, str(error))
    if isinstance(error, DirectoryInUse):
        return Failure(os.EX_UNAVAILABLE, str(error))
    if isinstance(error, OSError):
        return Failure(os.EX_CONFIG, f"The endpoint's directory cannot be used: {error.strerror}")
    log.error("the engine did not start", exc_info=error)
    return Failure(os.EX_SOFTWARE, f"The {engine.name} did not start; the endpoint's log says why.")


async def run_command(what: str, command: str) -> None:
    """Runs a shell command of the configuration; its output goes to the log.

    Raises:
        ConfigError: the command failed.
    """
    log.info("running %s", what)
    process = await asyncio.create_subprocess_shell(command, stdin=asyncio.subprocess.DEVNULL)
    code = await process.wait()
    if code:
        raise ConfigError(f"{what} failed with exit code {code}")
