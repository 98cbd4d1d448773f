"""Many starts of several users at once: nobody is refused for being many, and nobody is held up by another's many."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.accounts import ALICE, BOB
from tests.system.clients import IDLE, submit
from tests.system.sites import MAPPING, site_of

pytestmark = pytest.mark.system

EACH = int(os.environ.get("MEP_BURST", "20"))
"""Starts of each user; four of one account may be under way at a time."""
THIRD = "meptest_burst"


@pytest.fixture
def site(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    """A manager whose profile has no limits."""
    mapping = [*MAPPING, {"source": "{username}", "match": "mallory@example\\.org", "output": THIRD}]
    with (
        LocalAccount(THIRD),
        site_of(folder, hub, "burst", mapping=mapping, config={"public": True, "limits": {}}) as it,
    ):
        yield it


def commanded(hub: HubProcess, site: ManagerProcess) -> int:
    """How many user endpoints of the manager the hub has sent a start command for."""
    with contextlib.closing(sqlite3.connect(hub.folder / "hub.db")) as db:
        count = "SELECT count(*) FROM user_endpoint WHERE manager = ? AND commanded_at > 0"
        return int(db.execute(count, (site.endpoint_id,)).fetchone()[0])


def test_a_burst_of_three_users(hub: HubProcess, site: ManagerProcess) -> None:
    """All commands wait at the broker, as after a restart that took long, and then come at once."""
    os.kill(site.pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        options = [IDLE | {"BURST": n} for n in range(EACH)]
        clients = [pool.submit(submit, hub, site, user, *options) for user in ("alice", "bob", "mallory")]
        until(lambda: commanded(hub, site) == 3 * EACH, "all commands to be at the broker")
        os.kill(site.pid, signal.SIGCONT)
        outcomes = [said for client in clients for said in client.result()]
    assert [said for said in outcomes if "uid" not in said] == []
    assert site.audit("refused") == []
    order = [line["account"] for line in site.audit("started")]
    assert len(order) >= 3 * EACH
    for one in (ALICE, BOB, THIRD):
        for other in (ALICE, BOB, THIRD):
            last = max(n for n, account in enumerate(order) if account == other)
            assert order.index(one) < last, f"{one} waits behind all of {other}: {order}"
