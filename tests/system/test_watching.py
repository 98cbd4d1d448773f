"""What an admin sees of a running site: `mep ps`, `status`, `logs` and `why`, and who asks the API."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.sites import TEMPLATE, opened, site_of

pytestmark = pytest.mark.system

ACCOUNT = "mepwatch_alice"
TASK = """
import json, os, sys
from globus_compute_sdk import Executor
with Executor(endpoint_id=sys.argv[1], user_endpoint_config={"PERIOD": 1}) as ex:
    print(json.dumps(ex.submit(os.getpid).result(timeout=90)), flush=True)
"""
REFUSED = """
import json, os, sys
from globus_compute_sdk import Executor
with Executor(endpoint_id=sys.argv[1]) as ex:
    print(json.dumps(str(ex.submit(os.getpid).exception(timeout=90))), flush=True)
"""
COLUMNS = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount(ACCOUNT) as made:
        yield made


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, account: LocalAccount) -> Iterator[ManagerProcess]:
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    config = {"public": True, "status_group": grp.getgrgid(account.gid).gr_name}
    with site_of(folder, hub, "watching", mapping=mapping, template=TEMPLATE, config=config) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint(hub: HubProcess, site: ManagerProcess) -> dict[str, Any]:
    """What is on record of a user endpoint that has run a task."""
    (pid,) = run_script(hub, "alice", TASK, site.endpoint_id)
    assert pid
    return site.wait_for("started")


def mep(site: ManagerProcess, *arguments: str, code: int = 0) -> str:
    done = site.run(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout


def shown(site: ManagerProcess, endpoint: dict[str, Any]) -> dict[str, Any]:
    (found,) = json.loads(mep(site, "ps", "watching", "--json"))["user_endpoints"]
    assert found["name"] == endpoint["endpoint"]
    return dict(found)


def test_ps_says_who_runs_what(site: ManagerProcess, endpoint: dict[str, Any], account: LocalAccount) -> None:
    until(lambda: shown(site, endpoint)["done"] == 1, "what the user endpoint says of its task")
    found = shown(site, endpoint)
    assert (found["account"], found["uid"], found["pid"]) == (ACCOUNT, account.uid, endpoint["pid"])
    assert (found["state"].split(",")[0], found["engine"]) == ("running", "ThreadPoolEngine")
    assert (found["waiting"], found["running"], found["username"]) == (0, 0, "alice@example.org")
    assert found["memory_bytes"] > 2**20 and found["cpu_seconds"] > 0 and found["idle_since"] > 0
    titles, row = mep(site, "ps", "watching").splitlines()[:2]
    assert titles.split()[:2] == ["USER", "IDENTITY"]
    assert row.split()[:3] == [ACCOUNT, "alice@example.org", "running"] and row.endswith(
        endpoint["endpoint"].rpartition(".")[2]
    )


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_fits_its_terminal(site: ManagerProcess, endpoint: dict[str, Any], width: int) -> None:
    said = on_terminal([*site.command, "ps", "watching"], site, width)
    assert ACCOUNT in said
    assert max(map(len, said.splitlines())) <= width


def on_terminal(command: Sequence[str], site: ManagerProcess, width: int) -> str:
    environment = {**site.environment, "COLUMNS": str(width), "LINES": "24"}
    spawned = [sys.executable, "-c", COLUMNS, *command]
    done = subprocess.run(
        spawned, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode()


def test_watch_goes_on_until_it_is_interrupted(site: ManagerProcess, endpoint: dict[str, Any]) -> None:
    command = [*site.command, "ps", "watching", "--watch", "--json"]
    with subprocess.Popen(command, env=site.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["user_endpoints"]
        process.send_signal(2)
        assert process.wait(30) == 0


def test_who_is_no_root_asks_as_a_member_of_the_group(
    site: ManagerProcess, endpoint: dict[str, Any], account: LocalAccount
) -> None:
    """And reads no log, and nothing else of the manager's folder."""
    with opened(site.profile.parents[0]):
        done = as_account(site, account, "ps", "watching", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["user_endpoints"][0]["account"] == ACCOUNT
        assert as_account(site, account, "status", "watching").returncode == 0
        denied = as_account(site, account, "logs", "watching")
        assert denied.returncode == os.EX_NOPERM and "must be root" in denied.stderr


def as_account(site: ManagerProcess, account: LocalAccount, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*site.command, *arguments],
        env={**site.environment, "HOME": str(account.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )


def test_status_counts_and_names_refusals(hub: HubProcess, site: ManagerProcess, endpoint: dict[str, Any]) -> None:
    (told,) = run_script(hub, "bob", REFUSED, site.endpoint_id)
    refused = site.wait_for("refused")
    assert refused["request"] in told
    said = mep(site, "status", "watching")
    assert "1 started" in said and "stage identity" in said and f"mep why {refused['request']}" in said
    answer = json.loads(mep(site, "status", "watching", "--json"))
    assert (answer["state"], answer["user_endpoints"], answer["pid"]) == ("running", 1, site.pid)
    assert answer["events"]["refusals"] == {"identity": 1}


def test_logs_of_manager_request_and_user_endpoint(site: ManagerProcess, endpoint: dict[str, Any]) -> None:
    assert mep(site, "logs", "watching").splitlines() == (site.profile / "endpoint.log").read_text().splitlines()[-100:]
    assert len(mep(site, "logs", "watching", "-n", "2").splitlines()) == 2
    of_request = mep(site, "logs", "watching", "--request", endpoint["request"]).splitlines()
    assert of_request and all(endpoint["request"] in line for line in of_request)
    shown_name = endpoint["endpoint"].rpartition(".")[2]
    for given in (endpoint["endpoint"], shown_name, shown_name[:8]):
        assert "taking tasks" in mep(site, "logs", "watching", "--uep", given)


def test_a_users_log_shows_the_user_nothing_and_steers_nothing(
    site: ManagerProcess, endpoint: dict[str, Any], account: LocalAccount, tmp_path: Path
) -> None:
    """It is read as the user: a link leads to no file of root's, a pipe holds nobody up."""
    log = account.home / ".globus_compute" / endpoint["endpoint"] / "endpoint.log"
    kept = log.rename(log.with_name("kept"))
    command = ("logs", "watching", "--uep", endpoint["endpoint"])
    try:
        log.write_bytes(b"one\x1b[2J\xff\r\nlast without an end")
        os.chown(log, account.uid, account.gid)
        assert mep(site, *command).splitlines() == ["one\\x1b[2J\ufffd\\r", "last without an end"]
        log.write_bytes(b"x" * 3 * 2**20)
        assert len(mep(site, *command)) < 2 * 2**20
        log.unlink()
        log.symlink_to("/etc/shadow")
        assert "root:" not in mep(site, *command, code=os.EX_NOINPUT)
        log.unlink()
        os.mkfifo(log)
        mep(site, *command, code=os.EX_NOINPUT)
        log.unlink()
        mep(site, *command, code=os.EX_NOINPUT)
    finally:
        log.unlink(missing_ok=True)
        kept.rename(log)


@pytest.mark.parametrize("uep", ["../x", "x" * 200, "", "a b", "nosuch"])
def test_no_such_user_endpoint(site: ManagerProcess, uep: str) -> None:
    done = site.run("logs", "watching", "--uep", uep, "-n", "0")
    assert done.returncode in (os.EX_USAGE, os.EX_NOINPUT) or not uep


def test_why_tells_the_story(site: ManagerProcess, endpoint: dict[str, Any]) -> None:
    said = mep(site, "why", endpoint["request"])
    events = ["received", "mapped", "starting", "started", "checked in"]
    assert [said.index(f"  {event}") for event in events] == sorted(said.index(f"  {event}") for event in events)
    assert "in short: a user endpoint was started for it" in said and "taking tasks" in said
    (story,) = json.loads(mep(site, "why", endpoint["request"], "--json"))
    assert (story["account"], story["endpoint"]) == (ACCOUNT, endpoint["endpoint"])
    refused = site.audit("refused")[0]["request"]
    assert "in short: refused at stage identity" in mep(site, "why", refused)
    mep(site, "why", "nosuch-request", code=1)


def test_what_would_be_is_told_to_programs_too(site: ManagerProcess, account: LocalAccount) -> None:
    alice = ("--identity", "alice@example.org", "--json")
    mapped = json.loads(mep(site, "map", "watching", *alice))
    assert (mapped["account"], mapped["uid"], mapped["passed_over"]) == (ACCOUNT, account.uid, [])
    explained = json.loads(mep(site, "explain", "watching", *alice))
    assert explained["configuration"].startswith("heartbeat_period: 5") and explained["rule"] == mapped["rule"]
    checked = [json.loads(line) for line in mep(site, "check", "watching", "--files", "--json").splitlines()]
    assert checked and {line["verdict"] for line in checked} <= {"ok", "note"}


def test_a_next_manager_knows_the_story_too(site: ManagerProcess, endpoint: dict[str, Any]) -> None:
    """The figures come again; and of one that does not run the last errors are told."""
    site.restart()
    until(lambda: shown(site, endpoint)["done"] == 1, "what the user endpoint says of its task")
    assert shown(site, endpoint)["adopted"] is True
    site.stop()
    said = json.loads(mep(site, "status", "watching", "--json", code=3))
    assert said["state"] == "stopped" and said["last"].startswith("It was stopped")
    mep(site, "ps", "watching", code=3)
    assert "in short" in mep(site, "why", endpoint["request"])
    site.start()
