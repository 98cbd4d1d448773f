"""What several test folders share: the need for root, and the parts of a whole site, each as one fixture.

`broker`, `hub`, `accounts`, `manager` are real and live for the whole session. The session has a loopback interface of
its own where the kernel allows it (`lab.loopback`), so port 5000 and every other one is free.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import loopback
from lab.broker import PROGRAM, PrivateBroker
from lab.hub import HubProcess, identity

NAMES = ("admin", "alice", "bob", "mallory", "ghost", "rooty", "daemon")
USERS = {name: [identity(f"{name}@example.org")] for name in NAMES}
USERS["alice"].append(identity("al@other.example", status="private"))
CI = os.environ.get("CI") == "true"


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0 and not os.environ.get("MEP_BOX"):  # a box has a network of its own
        loopback.enter_private_network()


@pytest.fixture(scope="session")
def root() -> None:
    """For tests that become other users."""
    need(os.geteuid() == 0, "needs root")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that ordinary users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="mep-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def broker(folder: Path) -> Iterator[PrivateBroker]:
    """A RabbitMQ node; whoever stops it starts it again."""
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    with PrivateBroker(folder / "broker") as running:
        yield running


@pytest.fixture(scope="session")
def hub(folder: Path, broker: PrivateBroker) -> Iterator[HubProcess]:
    """A hub that knows USERS."""
    with HubProcess(folder / "hub", broker, USERS) as running:
        yield running


def need(met: bool, reason: str) -> None:
    """Skips a test whose need is not met; in CI it fails instead, because there everything is there."""
    if met:
        return
    if CI:
        pytest.fail(f"{reason}, and CI has that")
    pytest.skip(reason)
