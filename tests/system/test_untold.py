"""What cannot be told while the broker is away is told when it is back."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.broker import PrivateBroker
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.process import signal_ours
from lab.waiting import until
from tests.system.clients import SLEEP, submit
from tests.system.sites import own_site

pytestmark = pytest.mark.system

site = own_site("untold")


def test_a_death_that_cannot_be_told_is_told_when_the_broker_is_back(
    site: ManagerProcess, hub: HubProcess, broker: PrivateBroker
) -> None:
    """The manager runs on, and tries a notice for six seconds at first; nobody comes back meanwhile."""
    folder = site.folder / "untold"
    folder.mkdir()
    folder.chmod(0o777)
    marker = folder / "begun"
    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(submit, hub, site, "bob", {"RUN": "untold"}, function=SLEEP, arguments=[str(marker)])
        until(marker.exists, "the task to run")
        before = site.log.stat().st_size
        broker.stop()
        try:
            signal_ours(site.audit("started")[-1]["pid"], signal.SIGKILL)
            until(lambda: "it is tried again every few minutes" in site.log.read_text()[before:], "it to be given up")
        finally:
            broker.start()
        until(lambda: "consumes start commands" in site.log.read_text()[before:], "the manager to be connected")
        (said,) = waiting.result(110)
    assert "ended unexpectedly (signal 9 (SIGKILL))" in said["error"]
    kept = site.folder / "etc" / "user-endpoints" / site.name
    until(lambda: not list(kept.glob("*.json")), "nothing to be kept any more")
