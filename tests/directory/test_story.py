"""A manager of a site whose accounts are in a directory: names and groups as these have them, and its outages.

The tests are one story, in this order: SSSD remembers whom it has been asked for, so each outage meets a user of whom
nobody has asked yet.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.directory import FULL, SHORT, Directory, Group, Person, systemctl
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.clients import caller, request_of
from tests.system.sites import site_of

LONG = "a.name-that_is.longer.than-32-characters"
PEOPLE = {"alice": "Alice.Smith", "bob": "1bob", "mallory": LONG, "ghost": f"Carol@{FULL}", "rooty": "7-zip"}
"""The account of each user of the hub."""
ENTRIES = {
    SHORT: [
        Person("Alice.Smith", 70001),
        Person("1bob", 70002),
        Person(LONG, 70003),
        Person("7-zip", 70005),
        Group("physics", 70101, ["Alice.Smith", "1bob", LONG, "7-zip"]),
        Group("HPC users", 70102, ["physics"]),
        Group("guests", 70103, ["1bob"]),
    ],
    FULL: [Person("Carol", 70004), Group("hpc", 70104, ["Carol"])],
}
UIDS = {"alice": 70001, "bob": 70002, "mallory": 70003, "ghost": 70004, "rooty": 70005}
POLICY = {"directory_names": True, "allow_groups": ["HPC users", f"hpc@{FULL}"], "deny_groups": ["guests"]}
SCHEMA = {"type": "object", "properties": {"RUN": {"type": "string"}}}
"""RUN makes another user endpoint of the same user."""
Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def directory(folder: Path) -> Iterator[Directory]:
    for uid in UIDS.values():
        Path(f"/home/{uid}").mkdir(mode=0o700)
        os.chown(f"/home/{uid}", uid, uid)
    with Directory(folder / "directory", ENTRIES) as running:
        yield running


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, directory: Directory) -> Iterator[ManagerProcess]:
    mapping = [
        {"source": "{username}", "match": f"{user}@example\\.org", "output": name} for user, name in PEOPLE.items()
    ]
    mapping += [{"source": "{username}", "match": "daemon@example\\.org", "output": "ALICE.SMITH"}]
    changes = {"mapping": mapping, "schema": SCHEMA, "config": {"public": True, "accounts": POLICY}}
    with site_of(folder, hub, "directory", **changes) as running:
        yield running


@pytest.fixture
def call(hub: HubProcess, site: ManagerProcess) -> Call:
    run: Call = caller(hub, site)
    return run


def test_the_manager_starts_while_the_directory_answers_nothing(directory: Directory, site: ManagerProcess) -> None:
    site.stop()
    directory.hang()
    site.start()
    directory.go_on()


def test_a_name_with_capitals_and_a_group_by_way_of_another(call: Call) -> None:
    said = call("alice")
    assert (said["uid"], {70101, 70102} <= set(said["groups"])) == (70001, True)


def test_a_name_with_a_digit_in_front_is_known_and_its_group_denied(call: Call, site: ManagerProcess) -> None:
    said = call("bob")
    assert "may not run tasks on this system" in said["error"]
    assert "accounts.deny_groups" in site.wait_for("refused", request=request_of(said))["reason"]
    assert "'1bob' (uid 70002)" in site.audit("refused")[-1]["reason"]


def test_another_spelling_is_another_name(call: Call, site: ManagerProcess) -> None:
    said = call("daemon")
    assert "does not exist on this system" in said["error"]
    assert site.wait_for("refused", request=request_of(said))["stage"] == "account"


def test_a_slow_server_is_waited_for(call: Call, directory: Directory) -> None:
    with ThreadPoolExecutor() as pool:
        directory.hang()
        waiting = pool.submit(call, "mallory")
        until(directory.is_asked, "the server to be asked")
        assert uid(call("alice", RUN="meanwhile")) == 70001
        directory.go_on()
        assert uid(waiting.result()) == 70003


def test_a_server_that_hangs_holds_up_nobody_else(call: Call, directory: Directory, site: ManagerProcess) -> None:
    directory.hang()
    said = call("ghost")
    assert "does not answer at the moment; please try again later" in said["error"]
    assert "sssd" in site.wait_for("refused", request=request_of(said))["reason"]
    assert uid(call("alice", RUN="during")) == 70001
    directory.go_on()
    said = call("ghost")
    assert (said["uid"], 70104 in said["groups"]) == (70004, True)


def test_a_server_that_is_gone_is_missed_by_nobody_who_is_known(
    call: Call, directory: Directory, site: ManagerProcess
) -> None:
    first = call("alice", RUN="goes on")
    directory.kill_server()
    assert call("alice", RUN="goes on")["pid"] == first["pid"]
    assert uid(call("alice", RUN="anew")) == 70001
    assert "error" in call("rooty"), "SSSD itself takes somebody of whom it has never heard for nobody"
    directory.start_server()
    until(lambda: is_known("7-zip"), "SSSD to know that the server is back")
    assert uid(call("rooty")) == 70005
    assert site.audit("withdrawn") == []


def test_an_sssd_that_is_down_is_no_account_that_is_gone(call: Call, site: ManagerProcess) -> None:
    first = call("alice", RUN="goes on")
    systemctl("stop", "sssd")
    for user in ("alice", "bob"):
        said = call(user, RUN="while it is down")
        assert "does not answer at the moment; please try again later" in said["error"]
        assert "Connection refused; see whether sssd" in site.wait_for("refused", request=request_of(said))["reason"]
    assert call("alice", RUN="goes on")["pid"] == first["pid"]
    systemctl("start", "sssd")
    assert uid(call("alice", RUN="afterwards")) == 70001
    assert site.audit("withdrawn") == []


def test_check_knows_names_as_the_directory_has_them(site: ManagerProcess) -> None:
    said = edit(site, deny_users=["1bob", "alice.smith", f"carol@{FULL}"])
    assert "no user 'alice.smith', 'carol@ad.example.org'" in said
    edit(site, deny_users=[])


def test_such_names_are_for_sites_that_say_so(call: Call, site: ManagerProcess) -> None:
    """Who runs under one when that is taken back is ended, as with any right that is lost."""
    edit(site, directory_names=False)
    said = site.run("reload", "directory")
    assert said.returncode == 0, said.stderr
    assert site.wait_for("withdrawn", account="Alice.Smith")
    said = call("alice", RUN="no more")
    assert "is not mapped to an account" in said["error"]
    assert "directory_names" in site.wait_for("refused", request=request_of(said))["reason"]


def edit(site: ManagerProcess, **policy: Any) -> str:
    """What `mep check` says of the profile with these keys of `accounts` changed."""
    path = site.profile / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["accounts"] |= policy
    path.write_text(yaml.safe_dump(config))
    return site.run("check", "directory", "--files").stdout


def uid(said: dict[str, Any]) -> int:
    assert "error" not in said, said["error"]
    return int(said["uid"])


def is_known(name: str) -> bool:
    try:
        return pwd.getpwnam(name).pw_name == name
    except KeyError:
        return False
