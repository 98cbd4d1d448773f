"""What several test folders share: the need for root, and the parts of a whole site, each as one fixture.

`broker` and `hub` are real and live for the whole session. The session has a loopback interface of its own where the
kernel allows it (`lab.loopback`), so port 5000 and every other one is free. In a parallel run (pytest-xdist) each
worker is such a session, and a file runs in one of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import loopback
from lab.broker import PROGRAM, PrivateBroker
from lab.hub import HubProcess, identity

if TYPE_CHECKING:
    from lab.browser import Browser

NAMES = ("admin", "alice", "bob", "mallory", "ghost", "rooty", "daemon")
USERS = {name: [identity(f"{name}@example.org")] for name in NAMES}
USERS["alice"].append(identity("al@other.example", status="private"))
CI = os.environ.get("CI") == "true"
LONGEST_FIRST = (
    "system/test_box.py",
    "system/test_directory.py",
    "system/test_hostile_users.py",
    "compare/test_compare.py",
    "uep/durability/test_floods.py",
    "uep/durability/test_ends.py",
    "system/test_real_clients.py",
    "system/test_chain.py",
    "system/test_rights.py",
    "system/test_slurm.py",
    "hub/test_login.py",
    "system/test_story_nesi.py",
    "system/test_story_psik.py",
    "uep/endpoint/test_sessions.py",
    "system/test_idle.py",
    "uep/endpoint/test_life.py",
    "system/test_restart.py",
    "uep/durability/test_disk.py",
    "system/test_hostile_commands.py",
    "mep/renderer/test_hostile_options.py",
    "identity/test_differential.py",
    "uep/workers/test_partial_import.py",
    "uep/engines/test_htex.py",
)
"""The files that take longest. In a parallel run they begin before the others: what begins late ends late."""


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Python 3.12 warns of a fork beside other threads: those here talk to the controller, and no child needs them.
        config.addinivalue_line("filterwarnings", "ignore:This process .* is multi-threaded:DeprecationWarning")
    if os.geteuid() != 0 or os.environ.get("MEP_BOX"):  # a box has a network of its own
        return
    if not loopback.enter_private_network() and "PYTEST_XDIST_WORKER" in os.environ:
        raise pytest.UsageError("the kernel gives workers no networks of their own: not in parallel here (WORKERS=0)")


@pytest.hookimpl(tryfirst=True)  # before items are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "root" in getattr(item, "fixturenames", ()):
            item.add_marker("root")
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=weight)  # within a file the order stays


def weight(item: pytest.Item) -> int:
    """The place of the item's file in LONGEST_FIRST, or after the last."""
    name = item.path.relative_to(Path(__file__).parent).as_posix()
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


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


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser without cookies."""
    from lab.browser import CHROMIUM, DRIVER, Browser  # few tests need it, and it takes a while

    need(all(Path(program).exists() for program in (CHROMIUM, DRIVER)), "needs Chromium (lab/setup browser)")
    with Browser() as running:
        yield running


def need(met: bool, reason: str) -> None:
    """Skips a test whose need is not met; in CI it fails instead, because there everything is there."""
    if met:
        return
    if CI:
        pytest.fail(f"{reason}, and CI has that")
    pytest.skip(reason)
