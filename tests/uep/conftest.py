"""A private RabbitMQ, a peer that plays the web service, the real program, and engines without one, as fixtures."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.broker import PROGRAM, PrivateBroker
from lab.process import signal_ours
from tests.conftest import need
from tests.uep.program import THREADS, StartUep, Uep, start_program
from tests.uep.service import Service
from tests.uep.task_requests import StartEngine, engines_in


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A RabbitMQ node of this folder's own, to be stopped, started, and given users at will."""
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    with PrivateBroker(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


@pytest.fixture
def service(broker: PrivateBroker) -> Iterator[Service]:
    peer = Service(broker.url, str(uuid.uuid4()))
    yield peer
    peer.close()


@pytest.fixture
def start_uep(tmp_path: Path, service: Service) -> Iterator[StartUep]:
    """Starts the program with a hand-over; the endpoints of one test share a home, as successors do."""
    started: list[Uep] = []

    def start(config: str = THREADS, name: str = "uep.test", raw: bytes | None = None, **more: Any) -> Uep:
        """`more` are keys of the hand-over; `also` is a descriptor of ours and its number there, `environment` what
        the site adds to the program's environment, `interpreter` options of Python."""
        uep = start_program(tmp_path, service, config, name, raw, more)
        started.append(uep)
        return uep

    yield start
    for uep in started:
        if uep.process.poll() is None:
            uep.process.kill()
        uep.process.wait()
        for pid in uep.descendants():
            with contextlib.suppress(ProcessLookupError):
                signal_ours(pid, signal.SIGKILL)
        for fd in (uep.credential_fd, uep.ready):
            os.close(fd)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartEngine]:
    """Starts an engine, described as in a configuration, that works in `tmp_path`."""
    with engines_in(tmp_path) as make:
        yield make
