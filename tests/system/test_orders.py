"""Kill, drain and ban with real clients: what users read, what runs, and what a restart leaves of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.clients import SLEEP, request_of, submit
from tests.system.sites import own_site

pytestmark = pytest.mark.system

site = own_site("ordered", config={"public": True, "start_patience": 30, "unknown_options": "ignore"})


def ordered(site: ManagerProcess, command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = site.run(command, site.name, *arguments, "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    said: dict[str, Any] = json.loads(done.stdout) if code == 0 else {"error": done.stderr}
    return said


def in_the_midst(pool: ThreadPoolExecutor, hub: HubProcess, site: ManagerProcess, user: str, name: str) -> Any:
    """A task of the user's that runs for ten minutes; what becomes of it."""
    folder = site.folder / "begun"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    said = pool.submit(submit, hub, site, user, {"RUN": name}, function=SLEEP, arguments=[str(folder / name)])
    until(lambda: said.done() or (folder / name).exists(), "the task to run")
    assert not said.done(), said.result()
    return said


def test_who_waits_for_a_killed_one_reads_why_and_submits_again(hub: HubProcess, site: ManagerProcess) -> None:
    (other,) = submit(hub, site, "bob", {"RUN": 1})
    with ThreadPoolExecutor() as pool:
        waiting = in_the_midst(pool, hub, site, "alice", "killed")
        name = site.audit("started")[-1]["endpoint"]
        said = ordered(site, "kill", name[-12:], "--reason", "it fills /scratch")
        (answer,) = waiting.result()
    assert (said["target"], said["concerned"], said["left"]) == (name, 1, 0)
    assert said["user_endpoints"][0]["ended"] == "exit status 0", "in good order"
    assert "it fills /scratch" in answer["error"] and "Submit again" in answer["error"]
    (killed,) = [line for line in site.audit("killed") if line["endpoint"] == name]
    assert site.wait_for("asked", request=killed["order"])["by_uid"] == 0
    started = len(site.audit("started"))
    (again,) = submit(hub, site, "alice", {"RUN": "killed"})
    assert "pid" in again and len(site.audit("started")) == started + 1
    assert submit(hub, site, "bob", {"RUN": 1})[0]["pid"] == other["pid"], "nobody else noticed"
    assert "no user endpoint" in ordered(site, "kill", name + "x", code=65)["error"]


def test_a_drain_lets_go_on_what_runs_and_stays_over_a_restart(hub: HubProcess, site: ManagerProcess) -> None:
    (runs,) = submit(hub, site, "bob", {"RUN": "before"})
    until_ = ordered(site, "drain", "--until", "+2h", "--reason", "the scheduler is upgraded")["until"]
    (refused,) = submit(hub, site, "bob", {"RUN": "new"})
    assert "the scheduler is upgraded" in refused["error"] and "starts nothing new until 20" in refused["error"]
    assert site.wait_for("refused", request=request_of(refused))["stage"] == "orders"
    assert submit(hub, site, "bob", {"RUN": "before"}) == [runs]
    site.restart()
    assert "drained until" in site.run("status", site.name).stdout
    assert "the scheduler is upgraded" in submit(hub, site, "bob", {"RUN": "new"})[0]["error"]
    assert submit(hub, site, "bob", {"RUN": "before"}) == [runs]
    assert until_ > 0 and ordered(site, "undrain")["was"]
    assert "pid" in submit(hub, site, "bob", {"RUN": "new"})[0]
    ordered(site, "drain", "--until", "+5s", "--reason", "one moment")
    assert "pid" in submit(hub, site, "bob", {"RUN": "newer"})[0], "it waited"


def test_a_banned_user_is_out_with_all_that_runs_over_a_crash_too(hub: HubProcess, site: ManagerProcess) -> None:
    (other,) = submit(hub, site, "bob", {"RUN": "other"})
    with ThreadPoolExecutor() as pool:
        waiting = in_the_midst(pool, hub, site, "alice", "banned")
        pid = site.audit("started")[-1]["pid"]
        said = ordered(site, "ban", "Alice@example.org", "--kill", "--reason", "call the help desk")
        (answer,) = waiting.result()
    assert said["target"] == "alice@example.org" and said["concerned"] >= 1 and not psutil.pid_exists(pid)
    assert "call the help desk" in answer["error"]
    site.kill()
    site.start()
    (refused,) = submit(hub, site, "alice", {"RUN": "banned"})
    assert "call the help desk" in refused["error"]
    assert submit(hub, site, "bob", {"RUN": "other"})[0]["pid"] == other["pid"]
    assert "banned" in site.run("explain", site.name, "--identity", "alice@example.org").stderr
    ordered(site, "unban", "alice@example.org")
    assert "was not banned" in ordered(site, "unban", "alice@example.org", code=65)["error"]
    assert "pid" in submit(hub, site, "alice", {"RUN": "banned"})[0]


def test_orders_of_nobody(site: ManagerProcess, tmp_path: Path) -> None:
    for arguments in (["kill"], ["kill", "x", "--all"], ["drain"], ["ban", "a b"], ["drain", "--reason", "x" * 600]):
        command, *rest = arguments
        assert site.run(command, site.name, *rest).returncode == 64, arguments
    assert site.run("drain", site.name, "--reason", "x", "--until", "yesterday").returncode == 64
    assert site.run("kill", "nosuch", "--all").returncode == 78
