"""Who loses the right to run while a user endpoint works: by what the name service says, at the next command."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.accounts import COMMENT, LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.clients import submit
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
    """An account that the test removes."""
    with LocalAccount(GONE) as account:
        yield account
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
    for error in (said["error"], later["error"]):
        assert "account that does not exist" in error
        assert site.wait_for("refused", request=error.rsplit("(request ", 1)[1].rstrip(")"))["stage"] == "account"
    assert f"] {withdrawn['endpoint']} loses the right to run" in site.log.read_text()
    assert not done.exists()
    assert submit(hub, site, "alice", {"RUN": "goes on"})[0]["pid"] == other["pid"]
