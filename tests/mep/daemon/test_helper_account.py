"""The accounts of the helpers: found before an event loop runs, or refused with what to do."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from mep.accounts import look_up
from mep.daemon import helper_account
from mep.monitor.stages.name_service import NameService
from mep.processes import helper
from mep.processes.helper import HelperUnavailable
from mep.profile.config import ManagerConfig
from mep.profile.sections.accounts import AccountPolicy
from tests.conftest import need

pytestmark = pytest.mark.usefixtures("root")

CONFIG = ManagerConfig()
SYSUSERS = Path(__file__).parents[3] / "packaging" / "etc" / "mep.sysusers"


@pytest.fixture(scope="module")
def own(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("meptest_helper", shell="/usr/sbin/nologin", arguments=("--system",)) as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_account, "_LOOKS", 2)


def refused(**changed: object) -> str:
    with pytest.raises(HelperUnavailable) as caught:
        helper_account.find(dataclasses.replace(CONFIG, **changed))  # type: ignore[arg-type]
    assert caught.value.exit_code == os.EX_CONFIG
    return str(caught.value)


def test_each_helper_has_its_own() -> None:
    found = helper_account.find(CONFIG)
    named = {
        "mep-worker": found.worker,
        "mep-render": found.render,
        "mep-accounts": found.name_service,
        "mep-map": found.mapping,
    }
    for name, account in named.items():
        entry = pwd.getpwnam(name)
        assert (account.name, account.uid, account.gid) == (name, entry.pw_uid, entry.pw_gid)
    assert len({account.uid for account in named.values()}) == 4


@pytest.mark.parametrize("key", helper_account.KEYS)
@pytest.mark.parametrize("name", ["", "a\0b", "no such; account"])
def test_a_name_that_no_account_can_have_is_in_no_command(key: str, name: str) -> None:
    text = refused(**{key: name})
    assert key in text
    assert repr(name) in text
    assert "useradd" not in text


def test_those_that_do_not_exist_are_named_with_the_command_that_makes_them() -> None:
    text = refused(render_account="no-such-account", mapping_account="no-such-map")
    assert "'no-such-account' (render_account), 'no-such-map' (mapping_account)" in text
    command = text.partition("as root: ")[2]
    assert command.count("useradd --system") == 2
    assert "no-such-account && useradd" in command


@pytest.mark.parametrize("key", helper_account.KEYS)
def test_nobody_is_refused(key: str) -> None:
    text = refused(**{key: "nobody"})
    assert text.startswith(f"{key}: account 'nobody'")
    assert "useradd --system" in text


def test_one_that_may_have_user_endpoints_is_refused(own: LocalAccount) -> None:
    policy = AccountPolicy(min_uid=1, allow_nologin=True)
    assert "put it into accounts.deny_users" in refused(render_account=own.name, accounts=policy)
    names = (own.name, "mep-worker", "mep-accounts", "mep-map")
    denied = dataclasses.replace(policy, deny_users=names)
    config = dataclasses.replace(CONFIG, render_account=own.name, accounts=denied)
    assert helper_account.find(config).render.uid == own.uid


def test_one_that_a_group_keeps_out_is_none_of_those(own: LocalAccount) -> None:
    policy = AccountPolicy(min_uid=1, allow_nologin=True, allow_groups=("games",))
    assert helper_account.find(dataclasses.replace(CONFIG, mapping_account=own.name, accounts=policy))
    policy = AccountPolicy(min_uid=1, allow_nologin=True, allow_groups=(own.name,))
    assert "put it into accounts.deny_users" in refused(mapping_account=own.name, accounts=policy)


def test_one_with_other_processes_is_refused(own: LocalAccount, quick: None) -> None:
    with subprocess.Popen(["/bin/sleep", "600"], user=own.uid, group=own.gid, extra_groups=[]) as other:
        assert f"has other processes ({other.pid} sleep)" in refused(name_service_account=own.name)
        other.kill()
    assert helper_account.find(dataclasses.replace(CONFIG, name_service_account=own.name))


def test_those_that_a_manager_has_started_are_no_others(own: LocalAccount, quick: None) -> None:
    account = look_up.account(own.name)
    assert account is not None

    async def beside() -> None:
        service = NameService(account)
        await service.start()
        try:
            assert helper_account.find(dataclasses.replace(CONFIG, name_service_account=own.name))
        finally:
            await service.stop()

    asyncio.run(beside())


FORKS = """
import os, sys, time
uid = int(sys.argv[1])
child = os.fork()
if child == 0:
    os.setresuid(uid, uid, uid)
    print(1, flush=True)
    time.sleep(600)
os.waitpid(child, 0)
"""


def test_what_a_manager_has_forked_is_no_other(own: LocalAccount, quick: None) -> None:
    """It has the command line and the environment of the manager: nothing else tells that it is one's."""
    program = [sys.executable, "-I", "-c", FORKS, str(own.uid)]
    for marked in (True, False):
        environment = {helper.MARK: "1"} if marked else {}
        with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"1\n"
            try:
                if marked:
                    assert helper_account.find(dataclasses.replace(CONFIG, worker_account=own.name))
                else:
                    assert "has other processes" in refused(worker_account=own.name)
            finally:
                for pid in own.processes():
                    os.kill(pid, 9)


def test_one_account_for_two_of_them_is_refused(own: LocalAccount) -> None:
    assert "different uids" in refused(render_account=own.name, mapping_account=own.name)


def test_the_package_makes_those_that_are_the_default(tmp_path: Path) -> None:
    need(shutil.which("systemd-sysusers") is not None, "needs systemd-sysusers")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", SYSUSERS], check=True)
    made = [line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    assert {entry[0] for entry in made} == {getattr(CONFIG, key) for key in helper_account.KEYS}
    assert all(entry[6].endswith("/nologin") and 0 < int(entry[2]) < 1000 for entry in made)
