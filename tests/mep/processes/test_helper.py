"""Helpers: programs of ours that nobody else of their account can attach to, from their exec on."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.waiting import until
from mep.accounts import look_up
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.renderer import Renderer
from mep.processes import helper
from mep.processes.helper import HelperUnavailable
from mep.request.account import Account
from tests.mep.loading import loaded_by

pytestmark = pytest.mark.usefixtures("root")

LEAVES_OUT = {
    "mep.accounts.server": {"asyncio", "ssl", "logging", "pathlib", "email"},
    "mep.mapper.server": {"asyncio", "ssl", "_hashlib", "logging", "pathlib", "subprocess", "email"},
    "mep.renderer.server, mep.renderer.answer": {"asyncio", "ssl", "_hashlib", "bz2", "lzma", "logging", "subprocess"},
    "mep.worker.program": {"mep.processes.helper", "mep.processes.supervised", "mep.privileged.launch"},
    "mep.monitor.audit_program": {"asyncio", "ssl", "logging", "dataclasses", "inspect", "subprocess"},
}
"""What each of our programs beside the manager does not load: each of these costs up to 5 MB, in each process."""
STARTS = 10
ATTACKER = """
import ctypes, os, sys
PTRACE_SEIZE = 0x4206
libc = ctypes.CDLL(None)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
refused = {os.getpid()}
while True:
    for name in os.listdir("/proc"):
        if not name.isdigit() or (pid := int(name)) in refused:
            continue
        try:
            with open(f"/proc/{pid}/status", "rb") as status:
                ours = b"Uid:\\t%d\\t" % os.getuid() in status.read()
        except OSError:
            continue
        if not ours:
            if pid < 1000:
                refused.add(pid)
        elif libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0:
            refused.add(pid)
            print("attached", pid, flush=True)
"""
"""Attaches to whatever else runs under its uid, as often as it can try, and says to what."""


@pytest.fixture(scope="module")
def owner(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("meptest_helpers", shell="/usr/sbin/nologin") as made:
        yield made


@pytest.fixture
def account(owner: LocalAccount) -> Account:
    found = look_up.account(owner.name)
    assert found is not None
    return found


@pytest.fixture
def plain(account: Account) -> Iterator[subprocess.Popen[bytes]]:
    """Another process of the account."""
    with subprocess.Popen(["/usr/bin/setpriv", *ids(account), "/bin/sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def attacker(account: Account, plain: subprocess.Popen[bytes], tmp_path: Path) -> Iterator[Path]:
    """The file with what it says, while it is at work. It ends before `plain`, which nobody could reap otherwise."""
    said = tmp_path / "said"
    command = ["/usr/bin/setpriv", *ids(account), sys.executable, "-I", "-c", ATTACKER]
    with said.open("wb") as out, subprocess.Popen(command, stdout=out, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: f"attached {plain.pid}\n" in said.read_text(), "the attacker to attach to what it can")
            yield said
            assert process.poll() is None
        finally:
            process.kill()


def ids(account: Account) -> list[str]:
    return [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--"]


@pytest.mark.parametrize("program", LEAVES_OUT)
def test_a_helper_loads_no_more_than_it_must(program: str) -> None:
    assert not loaded_by(program) & LEAVES_OUT[program]


def test_nobody_of_the_account_attaches_to_a_helper(
    account: Account, attacker: Path, plain: subprocess.Popen[bytes]
) -> None:
    async def start_all() -> None:
        for _ in range(STARTS):
            accounts, renderer = NameService(account), Renderer(account)
            await accounts.start()
            await renderer.start()
            await accounts.stop()
            await renderer.stop()

    asyncio.run(start_all())
    assert attacker.read_text() == f"attached {plain.pid}\n"


def test_it_finds_its_packages_by_the_name_of_our_interpreter(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, sys, yaml; os.write(0, repr((sys.executable, sys.prefix, yaml.__file__)).encode()); sys.exit()"
    monkeypatch.setattr(helper, "_ARGUMENTS", ("-I", "-c", code))

    async def ask() -> str:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            process = await helper.start("", account, theirs)
            await process.ended
            return (await asyncio.get_running_loop().sock_recv(ours, 4096)).decode()

    import yaml

    assert asyncio.run(ask()) == repr((sys.executable, sys.prefix, yaml.__file__))


def test_an_upgrade_of_the_c_library_brings_its_loader_along(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two builds one does not load the other's libraries; the manager goes on, and its helpers come and go."""
    installed, new = tmp_path / "ld.so", tmp_path / "new"
    installed.write_bytes(Path(helper._loader_path()).read_bytes())
    monkeypatch.setattr(helper, "_loader_path", lambda: str(installed))

    def size() -> int:
        return os.fstat(helper.loader()).st_size

    before = size()
    assert helper.loader() == helper.loader(), "one copy, as long as it stays the same"
    new.write_bytes(installed.read_bytes() + b"of another build")
    new.rename(installed)
    assert size() > before


def test_what_loads_it_can_be_neither_read_nor_changed(account: Account) -> None:
    path = f"/proc/{os.getpid()}/fd/{helper.loader()}"
    assert Path(path).stat().st_mode & 0o777 == 0o711
    assert Path(path).stat().st_uid == 0
    with pytest.raises(PermissionError):
        os.write(helper.loader(), b"x")


def test_one_that_others_could_trace_does_not_begin(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(sys.executable).open("rb") as readable:
        monkeypatch.setattr(helper, "loader", readable.fileno)
        with pytest.raises(HelperUnavailable, match="step program: not proven: the account can read its program"):
            asyncio.run(NameService(account).start())


@pytest.mark.parametrize("module", ["mep.accounts.server", "mep.mapper.server", "mep.renderer.server"])
def test_a_helper_that_was_started_otherwise_ends(account: Account, module: str) -> None:
    command = ["/usr/bin/setpriv", *ids(account), sys.executable, "-I", "-m", module]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "can be traced by every other one of its account" in done.stderr
