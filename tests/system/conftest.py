"""A whole site, once for all system tests of a worker: accounts, manager; and users who run scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.accounts import ALICE, BOB
from tests.system.clients import caller
from tests.system.sites import site_of


@pytest.fixture(scope="session")
def accounts(root: None) -> Iterator[dict[str, LocalAccount]]:
    """Local accounts by name."""
    with LocalAccount(ALICE) as alice, LocalAccount(BOB) as bob:
        yield {account.name: account for account in (alice, bob)}


@pytest.fixture(scope="session")
def manager(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    """A manager that maps alice and bob to their accounts, and others to where nobody may go."""
    with site_of(folder, hub, "lab") as running:
        yield running


@pytest.fixture
def call(hub: HubProcess, manager: ManagerProcess) -> Any:
    """Runs a function at the endpoint as a user of the hub: `call(user, **options)` -> facts, or {"error": text}."""
    return caller(hub, manager)
