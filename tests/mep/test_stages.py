"""The small stages: account, admission, lifecycle, plan, credentials, audit, run lock, notify."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pwd
import socket
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from mep import account, lifecycle, notify, plan, profile, runlock
from mep.account import Account
from mep.admission import AccountPolicy, admit
from mep.audit import AuditTrail
from mep.command import StartEndpoint
from mep.credentials import CredentialFile
from mep.lifecycle import Action, Event, State
from mep.mapping import MappedIdentity
from mep.refusal import Refused
from mep.renderer import RenderedConfig


def test_an_account_has_all_its_groups() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    found = account.find(name)
    assert found.uid == os.getuid()
    assert set(os.getgrouplist(name, found.gid)) == set(found.groups)


@pytest.mark.parametrize("name", ["no-such-account", "", "a\0b", "\ud800", "0"])
def test_an_unknown_account_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        account.find(name)
    assert caught.value.refusal.stage == "account"


@pytest.mark.parametrize(
    ("changes", "policy", "names"),
    [
        ({"uid": 0}, AccountPolicy(min_uid=1), "root"),
        ({"gid": 0}, AccountPolicy(), "root"),
        ({"groups": (54321, 0)}, AccountPolicy(), "root"),
        ({"uid": 999}, AccountPolicy(), "min_uid"),
        ({"shell": "/usr/sbin/nologin"}, AccountPolicy(), "allow_nologin"),
        ({"shell": "/bin/false"}, AccountPolicy(), "allow_nologin"),
    ],
)
def test_who_is_not_admitted(alice: Account, changes: dict[str, object], policy: AccountPolicy, names: str) -> None:
    with pytest.raises(Refused) as caught:
        admit(dataclasses.replace(alice, **changes), policy)  # type: ignore[arg-type]
    assert names in caught.value.refusal.reason_for_admin
    assert "alice" not in caught.value.refusal.reason_for_user


def test_who_is_admitted(alice: Account) -> None:
    admit(alice, AccountPolicy())
    admit(dataclasses.replace(alice, uid=500), AccountPolicy(min_uid=500))
    admit(dataclasses.replace(alice, shell="/usr/sbin/nologin"), AccountPolicy(allow_nologin=True))


def test_the_managers_own_account_is_never_admitted(alice: Account) -> None:
    own = dataclasses.replace(alice, uid=os.getuid())
    with pytest.raises(Refused):
        admit(own, AccountPolicy(min_uid=1))


def test_the_table_has_every_pair() -> None:
    assert set(lifecycle.TABLE) == set(itertools.product(State, Event))


def test_an_end_is_told_to_the_user_exactly_when_nobody_asked_for_it() -> None:
    for (state, event), step in lifecycle.TABLE.items():
        told = Action.TELL_USER in step.actions
        assert told == (event is Event.EXITED_BADLY and state is not State.STOPPING)
        assert (Action.FORGET in step.actions) == (event in (Event.EXITED_CLEAN, Event.EXITED_BADLY))


@pytest.fixture
def planned(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> plan.LaunchPlan:
    site = profile.load(profile_directory)
    return plan.make(site, command, identity_of_alice, alice, RenderedConfig("engine: {}\n"))


def test_the_environment_is_built_from_nothing(planned: plan.LaunchPlan, command: StartEndpoint) -> None:
    assert planned.environment["HOME"] == "/home/alice"
    assert planned.environment["SITE"] == "here"
    assert planned.environment["GC_USER_PYTHON_VERSION"] == "3.11.2"
    assert planned.environment["GLOBUS_COMPUTE_ENDPOINT_NAME"] == command.name
    names = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "GLOBUS_COMPUTE_ENDPOINT_NAME", "SITE", "NUMBER"}
    assert set(planned.environment) == names | {"GC_USER_PYTHON_VERSION", "GC_USER_SDK_VERSION"}


def test_versions_that_are_none_stay_out_of_the_environment(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> None:
    strange = dataclasses.replace(
        command, user_runtime={"python": {"version": "3\n"}, "globus_compute_sdk_version": ["x"]}
    )
    made = plan.make(profile.load(profile_directory), strange, identity_of_alice, alice, RenderedConfig(""))
    assert not {"GC_USER_PYTHON_VERSION", "GC_USER_SDK_VERSION"} & set(made.environment)


def test_a_plan_shows_no_password(planned: plan.LaunchPlan, command: StartEndpoint) -> None:
    assert "hunter2" not in repr(planned)
    assert not any("hunter2" in text for text in [*planned.argv, *planned.environment.values()])
    assert planned.handover["amqp_creds"] == command.credentials
    assert planned.argv[-1] == command.name


def test_credentials_are_refreshed_in_place(tmp_path: Path) -> None:
    file = CredentialFile.create(tmp_path / "uep", {"a": "x" * 1000})
    reader = file.open_for_reading()
    for creds in ({"a": "x" * 1000}, {"b": "y"}):
        file.refresh(creds)
        sealed = os.pread(reader, 10_000, 0)
        assert json.loads(Fernet(file.key).decrypt(sealed)) == {"amqp_creds": creds}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(reader, b"x")
    os.close(reader)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert file.key not in repr(file)
    file.remove()
    assert not file.path.parent.exists()


def test_audit_lines_are_json(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.log")
    trail.record("refused", "r1", stage="identity", reason="line\nbreak")
    trail.record("started", "r2", pid=7)
    trail.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["refused", "started"]
    assert lines[0]["reason"] == "line\nbreak"
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_one_manager_at_a_time(tmp_path: Path) -> None:
    assert runlock.holder(tmp_path) is None
    assert runlock.stop(tmp_path) is False
    with runlock.hold(tmp_path):
        assert runlock.holder(tmp_path) == os.getpid()
        with pytest.raises(runlock.AlreadyRunning) as caught, runlock.hold(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
    assert runlock.holder(tmp_path) is None


def test_a_stale_lock_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "manager.pid").write_text("1\n")
    assert runlock.holder(tmp_path) is None
    with runlock.hold(tmp_path):
        assert runlock.holder(tmp_path) == os.getpid()


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notify.notify(READY="1")  # not under systemd: nothing happens
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.notify(READY="1", STATUS="consuming")
        assert sock.recv(100) == b"READY=1\nSTATUS=consuming"
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert notify.watchdog_period() == 20.0
    monkeypatch.delenv("WATCHDOG_USEC")
    assert notify.watchdog_period() is None
