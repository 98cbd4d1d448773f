"""A process and all that belongs to it is killed, and nobody else: real processes, real accounts."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from lab.accounts import LocalAccount
from lab.waiting import until
from mep.monitor.containment import limits, process_tree
from mep.monitor.containment.containment import Containment
from mep.privileged import kernel
from mep.processes.process import Process, audit_session_of
from mep.profile.sections.resources import Resources
from tests.conftest import need

PROJECT = Path(__file__).parents[4]


def kill_tree(process: Process, audit_session: int | None = None) -> int:
    return asyncio.run(process_tree.kill_tree(process, audit_session))


TREE = """
import os, sys, time
def sleep():
    os.write(1, b"%d\\n" % os.getpid())  # at once, as others write too
    time.sleep(600)
if os.fork() == 0:                      # in its group
    sleep()
if os.fork() == 0:                      # its parent is gone, its session is not
    if os.fork() == 0:
        sleep()
    os._exit(0)
if os.fork() == 0:                      # in a session of its own, with a child whose parent is gone
    os.setsid()
    if os.fork() == 0:
        if os.fork() == 0:
            sleep()
        os._exit(0)
    sleep()
if len(sys.argv) > 1:
    os.write(1, b"%d\\n" % os.getpid())
    sys.exit()
sleep()
"""


BOMB = """
import os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]), int(sys.argv[1])))
while True:
    try:
        os.fork()
    except OSError:
        os.write(1, b"1\\n")
        time.sleep(0.01)
"""


CHAIN = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork():
        break
os.write(1, b"%d\\n" % os.getpid())
time.sleep(600)
"""


SLEEP = "import time; print(1, flush=True); time.sleep(600)"


STILL_ROOT = """
import os, sys, time
uid = int(sys.argv[1])
child = os.fork()
if child == 0:
    os.setresuid(uid, uid, uid)
    print(1, flush=True)
time.sleep(600)
"""


@pytest.fixture
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("meptest_tree") as one:
        yield one
    while Tree.roots:
        root = Tree.roots.pop()
        root.kill()
        with root:  # closes its output and waits
            pass


class Tree:
    """Python that runs as an account (or as root) in a session of its own, and the `count` numbers that it prints."""

    roots: ClassVar[list[subprocess.Popen[str]]] = []
    """All that this test has started."""

    def __init__(self, account: LocalAccount, script: str, count: int, *arguments: object, uid: int = -1) -> None:
        uid = account.uid if uid == -1 else uid
        self.root = subprocess.Popen(
            ["/usr/bin/python3", "-c", script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            user=uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
        )
        self.roots.append(self.root)
        self.process = Process.of(self.root.pid, account.uid)
        assert self.root.stdout is not None
        self.said = [int(self.root.stdout.readline()) for _ in range(count)]

    def wait(self) -> int:
        """Waits for its root to end; a test that fails before leaves that to the fixture."""
        assert self.root.stdout is not None
        self.root.stdout.close()
        return self.root.wait()


def are_these(account: LocalAccount, pids: set[int]) -> None:
    """Waits until just these run as the account: a parent that has started another may not have ended yet."""
    until(lambda: set(account.processes()) == pids, f"just {pids} to run as {account.name}")


def test_a_whole_tree_is_killed(account: LocalAccount) -> None:
    """With the session that a descendant made, and an orphan in it."""
    tree = Tree(account, TREE, 5)
    are_these(account, set(tree.said))
    assert kill_tree(tree.process) == 5
    assert tree.wait() == -signal.SIGKILL
    until(lambda: not account.processes(), "all of them to end")
    assert kill_tree(tree.process) == 0


def test_the_rest_of_a_tree_is_killed(account: LocalAccount) -> None:
    """Its root has ended. What is in its session is found; what left the session is nobody's any more."""
    tree = Tree(account, TREE, 5, "the root ends")
    assert tree.wait() == 0
    are_these(account, set(tree.said) - {tree.root.pid})
    escaped = {pid for pid in account.processes() if os.getsid(pid) != tree.root.pid}
    assert (len(account.processes()), len(escaped)) == (4, 2)
    asyncio.run(Containment("prod").kill(tree.process, None))
    until(lambda: set(account.processes()) == escaped, "all others to end")


ESCAPES = """
import os, sys, time
from mep.privileged import kernel
kernel.set_login_uid(int(sys.argv[1]))
os.setresgid(int(sys.argv[2]), int(sys.argv[2]), int(sys.argv[2]))
os.setresuid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(600)
    os._exit(0)
os.wait()
"""
"""As a user endpoint is started, with a login uid; a task of it becomes a daemon and belongs to nobody any more."""


class Escaped:
    """Of a user endpoint that has ended itself, a daemon that is left."""

    def __init__(self, account: LocalAccount) -> None:
        program = [sys.executable, "-c", ESCAPES, str(account.uid), str(account.gid)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, start_new_session=True, cwd=PROJECT) as root:
            assert root.stdout is not None
            self.process = Process.of(root.pid, account.uid)
            self.pid = int(root.stdout.readline())
        found = audit_session_of(self.pid)
        assert found is not None
        self.session = found


def needs_audit() -> None:
    need(kernel.login_uid() is not None, "the kernel has no audit")


def test_a_daemon_that_belongs_to_nobody_is_found_by_its_audit_session(account: LocalAccount) -> None:
    needs_audit()
    one, other = Escaped(account), Escaped(account)
    assert one.session not in (other.session, audit_session_of(os.getpid()))
    assert kill_tree(one.process) == 0, "it has left its session, and lost its parent"
    assert asyncio.run(process_tree.in_audit_session(account.uid, one.session)) == {one.pid}
    assert kill_tree(one.process, one.session) == 1
    are_these(account, {other.pid})
    assert kill_tree(replace(other.process, uid=account.uid + 1), other.session) == 0, "another account's"
    asyncio.run(Containment("prod").kill(other.process, None, other.session))
    until(lambda: not account.processes(), "all of them to end")
    assert kill_tree(one.process, one.session) == 0


def test_others_have_their_turn_while_many_are_looked_at(account: LocalAccount) -> None:
    """Some hundred processes in each other: with psutil one look took the loop half a second."""
    tree = Tree(account, CHAIN, 301, 300)
    turns = 0

    async def story() -> int:
        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        killed = await process_tree.kill_tree(tree.process)
        beside.cancel()
        return killed

    assert asyncio.run(story()) == 301
    assert tree.wait() == -signal.SIGKILL
    until(lambda: not account.processes(), "all of them to end")
    assert turns > 9


@pytest.mark.parametrize("name", [b") S 1 1 1", b"\xff\xfe) Z 0 0", b"\n) R 1"])
def test_nobody_hides_behind_a_name(account: LocalAccount, name: bytes) -> None:
    renamed = f"open('/proc/self/comm', 'wb').write({name!r}); {SLEEP}"
    tree = Tree(account, renamed, 1)
    assert kill_tree(tree.process) == 1
    assert tree.wait() == -signal.SIGKILL


def test_a_fork_bomb_is_held_by_rlimits_and_killed(account: LocalAccount) -> None:
    limit = limits.rlimits(Resources(tasks_max=30))[resource.RLIMIT_NPROC]
    bomb = Tree(account, BOMB, 1, limit)
    until(lambda: len(account.processes()) > 10, "more of them")  # what an earlier test has ended may still count
    assert len(account.processes()) <= 30
    assert kill_tree(bomb.process) > 10
    assert bomb.wait() == -signal.SIGKILL
    until(lambda: not account.processes(), "all of them to end")


def test_nobody_else_is_killed(account: LocalAccount) -> None:
    """Not another session of the account, not who has the pid now, not another account's."""
    tree, other = Tree(account, SLEEP, 1), Tree(account, SLEEP, 1)
    for stranger in (replace(tree.process, start_time=tree.process.start_time - 1), replace(tree.process, uid=0)):
        assert kill_tree(stranger) == 0
    assert kill_tree(tree.process) == 1
    assert tree.wait() == -signal.SIGKILL
    are_these(account, {other.root.pid})
    assert kill_tree(other.process) == 1
    assert other.wait() == -signal.SIGKILL


def test_a_child_that_is_still_root_is_not_touched(account: LocalAccount) -> None:
    tree = Tree(account, STILL_ROOT, 1, account.uid, uid=0)
    assert kill_tree(tree.process) == 1, "its child, which is not root any more"
    until(lambda: not account.processes(), "all of them to end")
    assert psutil.Process(tree.root.pid).status() != psutil.STATUS_STOPPED
    assert tree.root.poll() is None
    tree.root.kill()
    tree.wait()
