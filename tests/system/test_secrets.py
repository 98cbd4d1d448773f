"""Nothing secret in argv, environment, logs, or anything that another user can read."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab import loopback
from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.hub import HubProcess
from lab.manager import ManagerProcess

pytestmark = pytest.mark.system


@pytest.fixture
def secrets(broker: PrivateBroker, hub: HubProcess, manager: ManagerProcess, call: Any) -> set[bytes]:
    """Every secret there is: client secrets, the broker's password, its cookie, and what user endpoints hold."""
    found = {user.client_secret for user in hub.users.values()}
    found.add(urlsplit(broker.url).password or "")
    found.add((broker.folder / ".erlang.cookie").read_text())
    call("alice", ENGINE="GlobusComputeEngine")
    call("alice", ENGINE="ProcessPoolEngine")
    for line in manager.audit("started"):
        for handover in Path(f"/proc/{line['pid']}/fd").glob("0"):
            assert "handover" not in str(handover.readlink()), "the hand-over stays open for tasks to read"
    assert all(len(secret) >= 16 for secret in found)
    return {secret.encode() for secret in found}


def test_no_process_shows_a_secret(secrets: set[bytes]) -> None:
    """All processes of this run, so also the broker's, the hub's and Parsl's; not the tests' own client programs."""
    looked_at = 0
    for folder in (Path(f"/proc/{pid}") for pid in loopback.processes()):
        for name in ("cmdline", "environ"):
            try:
                content = (folder / name).read_bytes()
            except OSError:
                continue
            looked_at += 1
            held = [secret for secret in secrets if secret in content]
            assert not held, f"{folder / name} holds a secret; {(folder / 'cmdline').read_bytes()!r}"
            assert b"amqp://" not in content or b"@" not in content.split(b"amqp://")[1][:80], f"{folder / name}"
    assert looked_at > 10


def test_no_log_holds_a_secret(
    secrets: set[bytes], folder: Path, accounts: dict[str, LocalAccount], manager: ManagerProcess
) -> None:
    logs = [*folder.rglob("*.log"), manager.profile / "endpoint.log"]
    logs += [path for account in accounts.values() for path in account.home.rglob("*.log")]
    assert len(logs) >= 5
    for log in logs:
        content = log.read_bytes()
        assert not [secret for secret in secrets if secret in content], f"{log} holds a secret"
        assert b"amqp://" not in content.replace(b":***@", b""), f"{log} holds a connection URL"


def test_files_that_hold_secrets_are_closed_to_others(secrets: set[bytes], folder: Path) -> None:
    holders = 0
    for path in folder.rglob("*"):
        if not path.is_file() or path.suffix == ".db" or path.name.endswith(("-wal", "-shm")):
            continue
        if any(secret in path.read_bytes() for secret in secrets):
            holders += 1
            closed = any(not stat.S_IMODE(part.stat().st_mode) & 0o077 for part in (path, *path.parents))
            assert closed, f"{path} can be read by others"
    assert holders >= 3


def test_nothing_listens_beyond_loopback(secrets: set[bytes], call: Any) -> None:
    listening = 0
    for table, local_host in (("/proc/net/tcp", "0100007F"), ("/proc/net/tcp6", "0" * 24 + "01000000")):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state != "0A":
                continue
            listening += 1
            address = local.split(":")[0]
            mapped = "0000000000000000FFFF0000" + "0100007F"
            assert address in (local_host, mapped), f"something listens on {local} ({table})"
    assert listening >= 3
