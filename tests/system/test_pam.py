"""User endpoints in PAM sessions: a manager with `pam` and a service file of its own in /etc/pam.d."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lab import loopback
from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.process import signal_ours
from lab.waiting import until
from mep.worker import sealing
from tests.accounts import ALICE, BOB
from tests.system.clients import caller
from tests.system.sites import site_of

pytestmark = pytest.mark.system

LOOK = """
import json, sys
from globus_compute_sdk import Executor

def look():
    import os, resource
    return {
        "uid": os.getuid(),
        "home": os.environ["HOME"],
        "from_pam": os.environ.get("FROM_PAM"),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "status": open("/proc/self/status").read(),
    }

with Executor(endpoint_id=sys.argv[1]) as ex:
    print(json.dumps(ex.submit(look).result(timeout=60)))
"""


@pytest.fixture(scope="module")
def told(folder: Path) -> Path:
    """What the session modules write down."""
    return folder / "pam-sessions"


@pytest.fixture(scope="module")
def service(told: Path, folder: Path) -> Iterator[str]:
    """Accounts by shadow passwords, and by a list of those who may not; sessions with limits and variables."""
    name = f"mep-test-{secrets.token_hex(6)}"
    (folder / "denied").write_text(f"{BOB}\n")
    (folder / "limits").write_text("* hard nofile 777\n* soft nofile 555\n")
    (folder / "variables").write_text("FROM_PAM DEFAULT=yes\nHOME DEFAULT=/nowhere\n")
    note = folder / "note"
    note.write_text(f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER" >>{told}\n')
    note.chmod(0o755)
    path = Path("/etc/pam.d", name)
    path.write_text(
        f"""
account required pam_listfile.so onerr=fail item=user sense=deny file={folder}/denied
account required pam_unix.so
auth required pam_permit.so
session required pam_limits.so conf={folder}/limits
session required pam_env.so conffile={folder}/variables
session required pam_exec.so {note}
"""
    )
    yield name
    path.unlink()


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount], service: str) -> Iterator[ManagerProcess]:
    config = {"public": True, "pam": {"enable": True, "service_name": service}}
    with site_of(folder, hub, "pam", config=config) as manager:
        yield manager


def keepers() -> set[int]:
    found = set()
    for pid in loopback.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "mep-session\n":
                found.add(pid)
    return found


def test_a_session_for_as_long_as_the_user_endpoint_lives(
    hub: HubProcess, site: ManagerProcess, accounts: dict[str, LocalAccount], told: Path
) -> None:
    before = keepers()
    (said,) = run_script(hub, "alice", LOOK, site.endpoint_id)
    assert said["uid"] == accounts[ALICE].uid
    assert said["home"] == str(accounts[ALICE].home), "the account's own variables win"
    assert said["from_pam"] == "yes"
    assert said["nofile"] == [555, 777]
    assert "NoNewPrivs:\t0" in said["status"], "set-uid programs work, as in a login session"
    assert "CapEff:\t0000000000000000" in said["status"]
    assert told.read_text() == f"open_session {ALICE}\n"
    (pid,) = {line["pid"] for line in site.audit("started")}
    (keeper,) = keepers() - before
    assert keeper != pid
    assert Path(f"/proc/{keeper}").stat().st_uid == 0
    signal_ours(pid, signal.SIGKILL)
    until(lambda: not keepers() - before, "the keeper to end")
    assert told.read_text() == f"open_session {ALICE}\nclose_session {ALICE}\n"


def test_a_session_outlives_its_manager(hub: HubProcess, site: ManagerProcess, told: Path) -> None:
    told.unlink(missing_ok=True)
    caller(hub, site)("alice", PERIOD=4)
    before = keepers()
    assert before
    site.restart()
    assert keepers() == before
    assert told.read_text() == f"open_session {ALICE}\n"
    site.stop()
    until(lambda: not keepers(), "the keepers to end")
    assert told.read_text() == f"open_session {ALICE}\nclose_session {ALICE}\n"
    site.start()


def memory(pid: int) -> bytes:
    """All that a process has in memory and can read itself."""
    content = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, rights, *_ = line.split()
            begin, end = (int(address, 16) for address in addresses.split("-"))
            if rights.startswith("r"):
                with contextlib.suppress(OSError, ValueError, OverflowError):  # of the kernel, or of a device
                    mem.seek(begin)
                    content.append(mem.read(end - begin))
    return b"".join(content)


def test_no_process_that_is_root_has_a_users_password(hub: HubProcess, site: ManagerProcess) -> None:
    """Neither the monitor nor a keeper nor another copy of it: not after a start, a refresh, or an adoption."""
    for again in (False, True):
        call = caller(hub, site)
        call("alice", PERIOD=6)
        call("alice", PERIOD=6)
        started = site.audit("started")[-1]
        facts = json.loads((site.folder / "run" / site.name / started["endpoint"] / "state.json").read_text())
        credentials = sealing.read(facts["credentials"].encode(), facts["key"])
        password = (urlsplit(credentials["task_queue_info"]["connection_url"]).password or "").encode()
        assert len(password) >= 16
        assert password in memory(facts["process"]["pid"]), "it can be found where it is"
        copies = [pid for pid in loopback.processes() if _parent(pid) == site.pid and _is_root(pid)]
        held = [pid for pid in (site.pid, *keepers(), *copies) if password in memory(pid)]
        assert not held, [Path(f"/proc/{pid}/comm").read_text() for pid in held]
        assert keepers()
        if not again:
            site.restart()
    site.stop()
    until(lambda: not keepers(), "the keepers to end")
    site.start()


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _is_root(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}").stat().st_uid == 0
    return False


def test_who_is_denied_is_told_so(hub: HubProcess, site: ManagerProcess, told: Path) -> None:
    told.unlink(missing_ok=True)
    before = keepers()
    said = caller(hub, site)("bob")
    assert "pam account" in said["error"]
    refused = site.wait_for("refused", stage="launch")
    assert "pam account" in refused["reason"]
    assert refused["request"] in said["error"]
    assert not told.exists(), "no session was opened"
    assert keepers() == before


def test_an_expired_account_is_refused(
    hub: HubProcess, site: ManagerProcess, accounts: dict[str, LocalAccount]
) -> None:
    accounts[ALICE].change("chage", "--expiredate", "0")
    try:
        said = caller(hub, site)("alice", PERIOD=3)
    finally:
        accounts[ALICE].change("chage", "--expiredate", "-1")
    assert "expired" in said["error"]


def test_without_the_service_file_nothing_starts(folder: Path, hub: HubProcess, root: None) -> None:
    config = {"pam": {"enable": True, "service_name": "mep-test-nosuch"}}
    site = site_of(folder, hub, "nopam", config=config)
    site.configure()
    for command in ("start", "check"):
        done = site.run(command, site.name)
        assert done.returncode == os.EX_CONFIG, done.stderr
        assert "/etc/pam.d/mep-test-nosuch" in done.stdout + done.stderr
