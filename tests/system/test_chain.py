"""The main job: an unmodified SDK call runs as the mapped local user; and what does not, says why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika
import pytest

from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.accounts import ALICE, BOB, PREFIX
from tests.system.sites import descriptors, edited, moved_away, program

pytestmark = pytest.mark.system

TOUR = Path(__file__).parents[2] / "demo" / "clients" / "tour.py"


@pytest.mark.parametrize("engine", ["ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"])
def test_a_task_runs_as_the_mapped_account(call: Any, accounts: dict[str, LocalAccount], engine: str) -> None:
    account = accounts[ALICE]
    said = call("alice", ENGINE=engine)
    assert (said["uid"], said["euid"], said["groups"]) == (account.uid, account.uid, [account.gid])
    assert said["cwd"].startswith(f"{account.home}/.globus_compute/uep.")


def test_two_users_are_two_accounts_and_cannot_read_each_other(
    call: Any, accounts: dict[str, LocalAccount], manager: ManagerProcess
) -> None:
    alice, bob = call("alice", RUN="two"), call("bob", RUN="two")
    assert alice["uid"] == accounts[ALICE].uid
    assert bob["uid"] == accounts[BOB].uid
    started = manager.wait_for("started", account=BOB)
    assert started["username"] == "bob@example.org"
    assert "match" in started["rule"] or "mapping" in started["rule"]
    home = accounts[ALICE].home / ".globus_compute"
    assert home.stat().st_mode & 0o077 == 0


def test_the_scripts_of_the_demo_work(hub: HubProcess, manager: ManagerProcess) -> None:
    said = run_script(hub, "bob", TOUR, manager.endpoint_id, '{"RUN": "tour"}')
    assert len(said) == 6
    assert said[0]["said"] == "5 + 10 = 15"
    assert said[-1]["said"] == "100 of 100 results are as expected"


def test_root_has_loaded_no_client_of_the_service(call: Any, manager: ManagerProcess) -> None:
    """It was registered, and has started user endpoints: what that needed beside it was in other processes."""
    assert call("alice", RUN="loaded")["uid"] != 0
    mapped = Path(f"/proc/{manager.pid}/maps").read_text(encoding="utf-8")
    assert "_ctypes" in mapped, "what it has loaded is there to be seen"
    assert "_pydantic_core" not in mapped


def test_the_same_options_reach_the_same_process(call: Any, manager: ManagerProcess) -> None:
    first = call("alice", RUN="same")
    second = call("alice", RUN="same")
    assert first["pid"] == second["pid"]
    refreshed = manager.audit("refreshed")
    assert first["pid"] in [line["pid"] for line in refreshed]


@pytest.mark.parametrize(
    ("user", "options", "stage", "told"),
    [
        ("mallory", {}, "identity", "mallory@example.org is not mapped"),
        ("ghost", {}, "account", "does not exist"),
        ("rooty", {}, "identity|admission", "account"),
        ("daemon", {}, "identity|admission", "account"),
        ("alice", {"PERIOD": "soon"}, "options", "'PERIOD' is \"soon\"; it takes a number"),
        ("alice", {"PERIOD": 0}, "options", "it takes a number from 0.1 on"),
        ("alice", {"parent_config": 1}, "options", "reserved"),
        ("alice", {"BROKEN": 1}, "template", "NO_SUCH_OPTION"),
    ],
)
def test_a_refusal_reaches_the_future_with_its_reason(
    call: Any, manager: ManagerProcess, user: str, options: dict[str, Any], stage: str, told: str
) -> None:
    error = call(user, **options)["error"]
    assert told in error
    request = error.rsplit("(request ", 1)[1].rstrip(")")
    line = manager.wait_for("refused", request=request)
    assert line["stage"] in stage.split("|")
    for secret in (str(manager.profile), "/home/", PREFIX, "Traceback"):
        assert secret not in error


def test_a_configuration_that_the_user_endpoint_cannot_use(call: Any) -> None:
    error = call("alice", ENGINE="NoSuchEngine")["error"]
    assert "NoSuchEngine" in error
    assert "ThreadPoolEngine" in error, "the valid names are told"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#!/bin/sh\necho broken >&2; exit 9\n", "exit status 9"),
        ("#!/bin/sh\nkill -KILL $$\n", "SIGKILL"),
        ("#!/bin/sh\nkill -40 $$\n", "signal 40"),
    ],
)
def test_a_program_that_dies_before_its_first_heartbeat(
    folder: Path, hub: HubProcess, manager: ManagerProcess, call: Any, text: str, told: str
) -> None:
    with edited(manager, uep_command=[program(folder, "dies", text)]):
        error = call("alice", RUN=told)["error"]
    assert told in error
    assert manager.audit("exited")


def test_a_program_that_cannot_be_executed_after_the_start(folder: Path, manager: ManagerProcess, call: Any) -> None:
    path = program(folder, "vanishes", "#!/bin/sh\nexit 0\n")
    with edited(manager, uep_command=[path]):
        Path(path).unlink()
        error = call("alice", RUN="vanished")["error"]
        refused = manager.audit("refused")[-1]
    assert "could not start a process" in error
    assert "'exec'" in refused["reason"]
    assert path in refused["reason"]


def test_a_home_that_is_missing(call: Any, accounts: dict[str, LocalAccount], manager: ManagerProcess) -> None:
    with moved_away(accounts[BOB].home):
        errors = [call("bob", RUN="homeless", TRY=n)["error"] for n in range(2)]
        open_after_one = descriptors(manager)
        call("bob", RUN="homeless", TRY=3)
    assert all("home folder cannot be entered: No such file or directory" in error for error in errors)
    assert descriptors(manager) <= open_after_one, "a refused launch keeps no descriptor"


def test_an_idle_user_endpoint_stops_and_is_reaped(call: Any, manager: ManagerProcess) -> None:
    said = call("bob", PERIOD=0.3, SOFT=3)
    exited = manager.wait_for("exited", pid=said["pid"])
    assert exited["ending"] == "exit status 0"
    assert exited["cpu_seconds"] > 0
    assert not Path(f"/proc/{said['pid']}").exists()
    again = call("bob", PERIOD=0.3, SOFT=3)
    assert again["pid"] != said["pid"]


def test_a_user_endpoint_that_is_killed_does_not_leave_a_future_hanging(
    hub: HubProcess, manager: ManagerProcess, accounts: dict[str, LocalAccount]
) -> None:
    script = """
import json, sys
from globus_compute_sdk import Executor
def die():
    import os, signal, time
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
with Executor(endpoint_id=sys.argv[1], user_endpoint_config={"RUN": "die"}) as ex:
    print(json.dumps(str(ex.submit(die).exception(timeout=60))))
"""
    (said,) = run_script(hub, "alice", script, manager.endpoint_id)
    assert "SIGKILL" in said


def test_the_manager_stops_its_user_endpoints_and_says_good_bye(
    hub: HubProcess, manager: ManagerProcess, call: Any
) -> None:
    said = call("alice", RUN="stop")
    before = manager.log.stat().st_size
    manager.stop()
    assert "killing" not in manager.log.read_text()[before:], "it ends by itself, and at once"
    assert not Path(f"/proc/{said['pid']}").exists()
    assert not list((manager.folder / "run").rglob("credentials"))
    manager.start()
    assert call("alice", RUN="stop")["pid"] != said["pid"]


def test_a_refused_start_leaves_nothing_behind(manager: ManagerProcess, call: Any) -> None:
    call("ghost")
    assert not [line for line in manager.audit("started") if line["username"].startswith("ghost")]


def test_a_running_manager_survives_garbage(
    hub: HubProcess, manager: ManagerProcess, call: Any, broker: PrivateBroker
) -> None:
    pid = manager.pid
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    queue = f"{manager.endpoint_id}.commands"
    channel.queue_declare(queue, passive=True)
    for body in (b"", b"{", b"[]", b'{"command": "cmd_start_endpoint"}', b"\xff" * 100):
        channel.basic_publish("", queue, body, pika.BasicProperties(content_type="application/json"))
    connection.close()
    assert call("alice", RUN="after garbage")["uid"]
    assert len([line for line in manager.audit("refused") if line["stage"] == "command"]) >= 5
    assert manager.pid == pid


def test_a_task_that_comes_while_the_manager_is_down_runs_when_it_is_back(
    broker: PrivateBroker, manager: ManagerProcess, call: Any
) -> None:
    manager.stop()
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()

    def waiting() -> int:
        return int(channel.queue_declare(f"{manager.endpoint_id}.commands", passive=True).method.message_count)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call, "bob", RUN="patience")
        until(waiting, "the command to be in the queue")
        connection.close()
        assert not future.done()
        manager.start()
        assert "uid" in future.result()
