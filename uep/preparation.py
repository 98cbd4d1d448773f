"""Prepares an endpoint, once, between its check-in and its first task, and says why that failed.

`endpoint` calls `prepare` as soon as the service knows the endpoint. Everything that may wait is done in the engine's
thread: heartbeats go on meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

from uep import shell_command
from uep.config import ConfigError, EndpointConfig
from uep.engines.base import Engine
from uep.environments import making
from uep.environments.wanted import read
from uep.storage.directory_lock import DirectoryInUse, lock_directory
from uep.storage.opening import Storage, open_storage
from wire.time_limit import within

log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """Why an endpoint cannot work: its exit code, the text for the user, and what the admin gets besides."""

    code: int
    text: str
    detail: str = ""


class NotReady(Exception):
    """`setup_timeout` is over; the text is for the user."""


async def prepare(
    config: EndpointConfig, engine: Engine, thread: Executor, tell: Callable[[str], None] = lambda _: None
) -> Storage:
    """Locks the directory, runs `endpoint_setup`, has an environment made for the tasks where they need one, starts the
    engine and opens the storage; slow steps in `thread`.

    When cancelled, nothing of `endpoint_setup` is left, and an engine that has not begun to start never does.

    tell: is given what tasks wait for, while an environment is made.

    Raises:
        Exception: one that `failure` explains.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + config.setup_timeout
    await lock_directory(engine.context.directory, thread)
    if config.endpoint_setup:
        await shell_command.run("endpoint_setup", config.endpoint_setup, max(1.0, deadline - loop.time()))
    if config.python is not None:
        begun = loop.time()
        if (environment := await making.ready(read(config.python), thread, tell)) is not None:
            log.info("tasks run in the environment %s", environment)
            engine.use_environment(environment)
        deadline += loop.time() - begun  # it has a time of its own
    try:
        await within(max(1.0, deadline - loop.time()), loop.run_in_executor(thread, engine.start))
        log.info("%s started", engine.name)
        opening = loop.run_in_executor(thread, open_storage, engine.context.directory)
        return await within(max(1.0, deadline - loop.time()), opening)
    except asyncio.TimeoutError:
        text = f"The {engine.name} was not ready for tasks within {config.setup_timeout:g} s (setup_timeout)."
        raise NotReady(text) from None


def failure(error: BaseException, engine: Engine) -> Failure:
    """Says what `error`, raised by `prepare`, means for the process and for the user."""
    if isinstance(error, ConfigError):
        return Failure(os.EX_CONFIG, str(error))
    if isinstance(error, (DirectoryInUse, NotReady)):
        return Failure(os.EX_UNAVAILABLE, str(error))
    if isinstance(error, OSError):
        where = error.filename or engine.context.directory
        return Failure(os.EX_CONFIG, unusable_directory(error), f"{where}: {error.strerror}")
    log.error("the engine did not start", exc_info=error)
    text = f"The {engine.name} did not start; the endpoint's log says why."
    return Failure(os.EX_SOFTWARE, text, f"{type(error).__name__}: {error}")


def unusable_directory(error: OSError) -> str:
    """Says that the endpoint's directory cannot be used, and what to do about it; without its path."""
    if error.errno == errno.ENOSPC:
        return "Your home folder is full: remove files, then submit again."
    if error.errno == errno.EDQUOT:
        return "Your home folder is over its quota: remove files, then submit again."
    return f"The endpoint's directory cannot be used: {error.strerror}"
