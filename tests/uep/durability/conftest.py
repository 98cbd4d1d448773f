"""A tally, and what may fail under it: a network, a disk, a flow of tasks."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.broker import PrivateBroker
from lab.proxy import Proxy
from tests.uep.durability.tally import Tally
from tests.uep.service import Service


@pytest.fixture
def tally(service: Service, tmp_path: Path) -> Tally:
    return Tally(service, tmp_path / "marks")


@pytest.fixture
def network(broker: PrivateBroker) -> Iterator[Proxy]:
    """Between the endpoint and the broker."""
    with Proxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
def small_disk(root: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def flow(tally: Tally, broker: PrivateBroker) -> Iterator[Callable[[], None]]:
    """Tasks that come all the time; calling it ends them."""
    sender = Service(broker.url, tally.service.endpoint_id)
    enough = threading.Event()

    def send() -> None:
        while not enough.is_set():
            tally.send(random.randrange(1, 20), through=sender)
            time.sleep(random.uniform(0, 0.3))

    def end() -> None:
        enough.set()
        sending.join()

    sending = threading.Thread(target=send)
    sending.start()
    yield end
    end()
    sender.close()
