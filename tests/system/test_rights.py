"""What the name service says while a user endpoint works: a right is lost by a sure answer, and by no outage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from lab.accounts import COMMENT, AccountFailed, LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.clients import request_of, submit
from tests.system.sites import MAPPING, own_site

pytestmark = pytest.mark.system

GONE = "meptest_gone"
site = own_site("gone", mapping=[*MAPPING, {"source": "{username}", "match": "mallory@example\\.org", "output": GONE}])
WRITES_LATER = """
def task(begun, done):
    import pathlib, time
    pathlib.Path(begun).touch()
    time.sleep(40)
    pathlib.Path(done).touch()
"""


@pytest.fixture
def gone(root: None) -> Iterator[LocalAccount]:
    """An account that the test removes. Its number is none that useradd gives to another one then."""
    with LocalAccount(GONE, arguments=("--uid", "60123")) as account:
        yield account
        with contextlib.suppress(AccountFailed):  # it is there still
            account.change("useradd", "--no-create-home", "--comment", COMMENT, "--uid", str(account.uid))


def test_an_account_that_is_gone_loses_what_runs(hub: HubProcess, site: ManagerProcess, gone: LocalAccount) -> None:
    """Nothing happens by the clock; at the next command the name service is asked until it has agreed with itself."""
    folder = site.folder / "gone"
    folder.mkdir()
    folder.chmod(0o777)
    begun, done = folder / "begun", folder / "done"
    (other,) = submit(hub, site, "alice", {"RUN": "goes on"})
    with ThreadPoolExecutor() as pool:
        arguments = [str(begun), str(done)]
        future = pool.submit(submit, hub, site, "mallory", {"RUN": 1}, function=WRITES_LATER, arguments=arguments)
        until(begun.exists, "the task to run")
        gone.change("userdel", "--force")
        (later,) = pool.submit(submit, hub, site, "mallory", {"RUN": 1}).result()
        (said,) = future.result()
    withdrawn = site.wait_for("withdrawn", account=GONE)
    assert (withdrawn["stage"], withdrawn["identity"]) == ("account", site.audit("received")[-1]["identity"])
    assert site.wait_for("exited", endpoint=withdrawn["endpoint"])
    for answer in (said, later):
        assert "account that does not exist" in answer["error"]
        assert site.wait_for("refused", request=request_of(answer))["stage"] == "account"
    told = [line for line in site.log.read_text().splitlines() if f"[{withdrawn['request']}] withdrawn" in line]
    assert len(told) == 1 and withdrawn["endpoint"] in told[0]
    assert not done.exists()
    assert submit(hub, site, "alice", {"RUN": "goes on"})[0]["pid"] == other["pid"]


WAITS = """
def task(begun, go):
    import os, pathlib, time
    pathlib.Path(begun).touch()
    while not pathlib.Path(go).exists():
        time.sleep(0.05)
    return os.getpid()
"""


def test_a_repeat_that_is_refused_touches_nothing_that_runs(hub: HubProcess, site: ManagerProcess) -> None:
    """The name service stands still when the same user submits a second task with the same options."""
    folder = site.folder / "repeat"
    folder.mkdir()
    folder.chmod(0o777)
    begun, go = folder / "begun", folder / "go"
    with ThreadPoolExecutor() as pool:
        options, arguments = {"RUN": "repeat"}, [str(begun), str(go)]
        first = pool.submit(submit, hub, site, "bob", options, function=WAITS, arguments=arguments)
        until(begun.exists, "the task to run")
        started = site.audit("started")[-1]
        (helper,) = [each for each in psutil.Process(site.pid).children() if "mep.accounts.server" in each.cmdline()]
        helper.suspend()
        second = pool.submit(submit, hub, site, "bob", options, function=WAITS, arguments=arguments)
        refused = site.wait_for("refused", timeout=90, endpoint=started["endpoint"])
        assert (refused["stage"], refused["pid"]) == ("account", started["pid"])
        assert not first.done(), "no notice fails what it works on"
        go.touch()
        assert first.result()[0] == second.result()[0]
    assert not [line for line in site.audit("exited") if line["endpoint"] == started["endpoint"]]
    assert [line["pid"] for line in site.audit("started") if line["endpoint"] == started["endpoint"]] == [
        started["pid"]
    ]
    assert "pid" in submit(hub, site, "bob", {"RUN": "afterwards"})[0], "there is another helper"


def test_a_mapper_that_is_killed_takes_nobodys_right(hub: HubProcess, site: ManagerProcess) -> None:
    """While who runs is looked at after an edit of the mapping, too; the next task finds another mapper."""

    def mapper() -> psutil.Process:
        (found,) = [each for each in psutil.Process(site.pid).children() if "mep.mapper.server" in each.cmdline()]
        return found

    pid, before = submit(hub, site, "bob", {"RUN": "mapped"})[0]["pid"], mapper()
    withdrawn = len(site.audit("withdrawn"))
    before.kill()
    before.wait()
    assert submit(hub, site, "bob", {"RUN": "mapped"})[0]["pid"] == pid
    assert mapper().pid != before.pid
    mapper().kill()
    documents = site.profile / "example_identity_mapping_config.json"
    documents.write_text(f"{documents.read_text()}\n")
    site.reload()
    assert submit(hub, site, "bob", {"RUN": "mapped"})[0]["pid"] == pid
    assert len(site.audit("withdrawn")) == withdrawn
