"""User endpoints outlive their manager, and the next manager knows them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.process import signal_ours
from lab.waiting import until
from tests.accounts import ALICE
from tests.system.clients import caller
from tests.system.sites import own_site

pytestmark = pytest.mark.system


site = own_site("again", config={"public": True, "mu_child_ep_grace_period_s": 2, "heartbeat_period": 600})
HOW = """
import sys, json
from globus_compute_sdk import Client
print(json.dumps(Client().get_endpoint_status(sys.argv[1])))
"""


@pytest.fixture
def run(hub: HubProcess, site: ManagerProcess) -> Any:
    return caller(hub, site)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_for_end(pid: int) -> None:
    until(lambda: not alive(pid), f"the end of {pid}")


def state_folders(site: ManagerProcess) -> list[str]:
    return sorted(path.parent.name for path in (site.folder / "run" / site.name).glob("*/state.json"))


def test_a_restart_keeps_user_endpoints_and_the_next_manager_adopts_them(site: ManagerProcess, run: Any) -> None:
    before = run("alice", RUN="kept")["pid"]
    site.restart()
    adopted = site.wait_for("adopted", pid=before)
    assert adopted["account"] == ALICE
    assert run("alice", RUN="kept")["pid"] == before
    assert site.wait_for("refreshed", pid=before)


def test_the_service_is_told_of_a_stop_and_not_of_a_restart(hub: HubProcess, site: ManagerProcess) -> None:
    """A missing heartbeat shows in ten minutes only: what the service says before, it has been told."""

    def status() -> str:
        ((said),) = run_script(hub, "admin", HOW, site.endpoint_id)
        return str(said["status"])

    until(lambda: status() == "online", "the first heartbeat")
    os.kill(site.pid, signal.SIGUSR1)
    until(lambda: site.run("status", site.name).returncode == 3, "its end")
    assert status() == "online"
    site.kill()  # it has ended; only the lab has to know
    site.start()
    assert "stopped" in site.run("stop", site.name).stdout
    until(lambda: status() == "offline", "the last heartbeat to arrive")
    site.kill()
    site.start()


def test_a_manager_that_was_killed_is_succeeded_in_the_same_way(site: ManagerProcess, run: Any) -> None:
    before = run("bob", RUN="killed")["pid"]
    site.kill()
    assert alive(before)
    site.start()
    assert site.wait_for("adopted", pid=before)
    assert run("bob", RUN="killed")["pid"] == before


def test_an_adopted_one_that_stops_idle_is_reaped_and_not_told_as_a_failure(site: ManagerProcess, run: Any) -> None:
    pid = run("alice", RUN="idle", PERIOD=0.5, SOFT=6)["pid"]
    signal_ours(pid, signal.SIGSTOP)  # its time goes on when it is adopted
    site.restart()
    site.wait_for("adopted", pid=pid)
    signal_ours(pid, signal.SIGCONT)
    exited = site.wait_for("exited", pid=pid)
    assert exited["ending"] == "stopped by itself"
    assert not alive(pid)
    name = exited["endpoint"]
    assert name not in state_folders(site)
    assert not [line for line in site.audit("refused") if name in line["reason"]]
    assert run("alice", RUN="idle", PERIOD=0.5, SOFT=6)["pid"] != pid


def test_an_adopted_one_that_is_killed_is_told(site: ManagerProcess, run: Any) -> None:
    pid = run("alice", RUN="dies later")["pid"]
    site.restart()
    site.wait_for("adopted", pid=pid)
    signal_ours(pid, signal.SIGKILL)
    exited = site.wait_for("exited", pid=pid)
    assert "may have been killed" in exited["ending"]
    assert site.wait_for("refused", request=exited["request"])["stage"] == "running"

    def successor() -> Any:
        """The notice may still be on its way to the service; then it fails the task that has come before it."""
        found = run("alice", RUN="dies later")
        assert "pid" in found or "ended unexpectedly" in found["error"], found
        return found.get("pid")

    assert until(successor, "a user endpoint that is another one") != pid


def test_one_that_died_while_no_manager_ran_is_told_by_the_next(site: ManagerProcess, run: Any) -> None:
    pid = run("bob", RUN="unseen")["pid"]
    time.sleep(2.1)  # until its command is no longer remembered
    site.kill()
    signal_ours(pid, signal.SIGKILL)
    wait_for_end(pid)
    site.start()
    exited = site.wait_for("exited", pid=pid)
    assert exited["ending"] == "ended while no manager ran"
    assert site.wait_for("refused", request=exited["request"])["stage"] == "running"
    assert exited["endpoint"] not in state_folders(site)


def test_a_pid_that_belongs_to_somebody_else_by_now_is_never_touched(
    site: ManagerProcess, run: Any, accounts: dict[str, LocalAccount]
) -> None:
    """The state names a process of the same account and pid, but another start time: as after the pid was recycled."""
    name = site.wait_for("started", pid=run("alice", RUN="recycled")["pid"])["endpoint"]
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=accounts[ALICE].uid)
    try:
        site.kill()
        path = site.folder / "run" / site.name / name / "state.json"
        state = json.loads(path.read_text())
        signal_ours(state["process"]["pid"], signal.SIGKILL)
        wait_for_end(state["process"]["pid"])
        state["process"]["pid"] = stranger.pid
        path.write_text(json.dumps(state))
        site.start()
        assert site.wait_for("exited", endpoint=name, pid=stranger.pid)["ending"] == "ended while no manager ran"
        site.stop()
        assert stranger.poll() is None
        site.start()
    finally:
        stranger.kill()
        stranger.wait()


def test_state_that_cannot_be_understood_is_left_alone(site: ManagerProcess, run: Any) -> None:
    pid = run("bob", RUN="garbled")["pid"]
    name = site.wait_for("started", pid=pid)["endpoint"]
    path = site.folder / "run" / site.name / name / "state.json"
    site.kill()
    path.write_text("{")
    site.start()
    assert f"{path.parent}: cannot be adopted" in site.log.read_text()
    assert alive(pid)
    signal_ours(pid, signal.SIGKILL)
    path.unlink()


def test_a_start_that_was_not_finished_is_undone(site: ManagerProcess, run: Any) -> None:
    """Its command was never acked and comes again: there must not be two then."""
    pid = run("bob", RUN="half")["pid"]
    name = site.wait_for("started", pid=pid)["endpoint"]
    path = site.folder / "run" / site.name / name / "state.json"
    kept = site.folder / "etc" / "user-endpoints" / site.name / f"{name}.json"
    until(kept.exists, "what outlives a crash of the host")
    site.kill()
    kept.unlink()  # it is written later than that
    path.write_text(json.dumps({**json.loads(path.read_text()), "executed": False}))
    site.start()
    wait_for_end(pid)
    assert name not in state_folders(site)


def test_a_stop_ends_adopted_ones_too(site: ManagerProcess, run: Any) -> None:
    pid = run("alice", RUN="stop")["pid"]
    site.restart()
    site.wait_for("adopted", pid=pid)
    site.stop()
    assert not alive(pid)
    assert state_folders(site) == []
    site.start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_key_of_its_terminal_stops_it_in_good_order(site: ManagerProcess, run: Any, number: signal.Signals) -> None:
    """The signal goes to all of its group. Nothing of it is lost: user endpoints have ended, and that is on record."""
    process = site._process
    assert process is not None
    pid = run("alice")["pid"]
    os.killpg(process.pid, number)
    assert process.wait(60) == 0, site.log_end()
    site._process = None
    assert f"{number.name}: stopping; user endpoints are ended" in site.log_end()
    assert not alive(pid) and state_folders(site) == []
    assert site.audit("exited")[-1]["pid"] == pid
    assert "lost" not in site.log_end()
    site.start()


def test_on_stop_keep(site: ManagerProcess, run: Any) -> None:
    path = site.profile / "config.yaml"
    before = path.read_text()
    path.write_text(yaml.safe_dump({**yaml.safe_load(before), "on_stop": "keep"}))
    assert "profile reloaded" in site.reload()
    pid = run("bob", RUN="keep")["pid"]
    done = site.run("stop", site.name)
    assert "user endpoints go on" in done.stdout
    site.kill()  # it has ended; only the lab has to know
    assert alive(pid)
    assert "go on" in site.run("stop", site.name).stdout, "still kept"
    path.write_text(before)
    assert "that no manager looked after" in site.run("stop", site.name).stdout
    assert not alive(pid)
    assert state_folders(site) == []
    site.start()


def test_tasks_under_way_and_new_ones_survive_many_restarts(
    hub: HubProcess, site: ManagerProcess, accounts: dict[str, LocalAccount]
) -> None:
    def worked() -> int:
        return len(list(accounts[ALICE].home.glob("worked-*")))

    script = """
import json, sys
from globus_compute_sdk import Executor
def work(n):
    import os, pathlib, time
    time.sleep(0.2)
    pathlib.Path.home().joinpath(f"worked-{n}").touch()
    return n, os.getpid()
with Executor(endpoint_id=sys.argv[1], user_endpoint_config={"RUN": "load"}) as ex:
    futures = [ex.submit(work, n) for n in range(40)]
    done = [future.result(timeout=60) for future in futures]
print(json.dumps([[n for n, _ in done] == list(range(40)), len({pid for _, pid in done})]))
"""
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run_script, hub, "alice", script, site.endpoint_id)
        for turn in range(3):
            until(lambda most=10 * turn: worked() > most, "more tasks to end")
            if turn == 1:
                site.kill()
                site.start()
            else:
                site.restart()
        assert result.result() == [[True, 1]]
