"""A crash of the whole host, as far as it can be had without one: every process gone, no good-bye, an empty /run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.process import signal_ours
from lab.waiting import until
from tests.system.clients import SLEEP, submit
from tests.system.sites import MAPPING, own_site

pytestmark = pytest.mark.system

site = own_site("crash")


def kept(site: ManagerProcess) -> list[str]:
    return sorted(path.stem for path in (site.folder / "etc" / "user-endpoints" / site.name).glob("*.json"))


def crash(site: ManagerProcess, pid: int) -> None:
    os.kill(site.pid, signal.SIGSTOP)  # nobody sees the other one end
    signal_ours(pid, signal.SIGKILL)
    site.kill()
    shutil.rmtree(site.folder / "run" / site.name)


@pytest.mark.parametrize("allowed", [True, False], ids=["mapped", "not mapped any more"])
def test_a_task_of_before_is_answered_without_its_user(site: ManagerProcess, hub: HubProcess, allowed: bool) -> None:
    marker = _marker(site, allowed)
    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(
            submit, hub, site, "alice", {"RUN": str(allowed)}, function=SLEEP, arguments=[str(marker)]
        )
        until(marker.exists, "the task to run")
        name = _running(site)
        started = site.wait_for("started", endpoint=name)
        until(lambda: kept(site) == [name], "it to be on disk")
        crash(site, started["pid"])
        if not allowed:
            site.write_mapping([MAPPING[1]])
        site.start()
        (said,) = waiting.result(60)
    if allowed:
        assert "stopped before this task was finished" in said["error"]
        assert "Submit it again" in said["error"]
        assert site.wait_for("recovering", endpoint=name)
        pids = until(lambda: {line["pid"] for line in site.audit("checked in")} - {started["pid"]}, "its successor")
        signal_ours(pids.pop(), signal.SIGTERM)
    else:
        assert "mapped" in said["error"] or "identity" in said["error"]
        assert site.wait_for("refused", request=started["request"])["stage"] == "identity"
        site.write_mapping(MAPPING)
    until(lambda: kept(site) == [], "nothing to be kept any more")


def _marker(site: ManagerProcess, allowed: bool) -> Path:
    folder = site.folder / "markers"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    return folder / str(allowed)


def _running(site: ManagerProcess) -> str:
    (folder,) = (site.folder / "run" / site.name).glob("*/state.json")
    facts: dict[str, Any] = json.loads(folder.read_text())
    return str(facts["command"]["name"])
