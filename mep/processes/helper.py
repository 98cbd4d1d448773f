"""A Python module of ours that runs as a process of its own, under an account without rights.

The monitor has four: `worker.program`, `mapper.server`, `accounts.server` and `renderer.server`. Each is reached
through one socket, which is its descriptor 0; what it says on its standard output and error goes to the monitor's.

What is executed is a copy in memory of the program that loads programs (ld.so), which its account may execute and not
read. So the kernel lets no other process of that account attach to it, from its exec on
(`privileged.become.prove_unreadable`). It loads our interpreter, whose pages all processes that run it share.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import socket
import struct
import sys
from collections.abc import Sequence

from mep.privileged import kernel
from mep.processes.message import FIRST_MORE
from mep.processes.supervised import NotStarted, SupervisedProcess
from mep.request.account import Account
from mep.request.launch_spec import LaunchSpec

MARK = "MEP_HELPER"
"""A variable, 1 in whatever we start as an account of the helpers: by it other processes of that are told apart."""
_ARGUMENTS = ("-I", "-m")
_NAME = "mep-helper"
_MODE, _OWN_MODE = 0o711, 0o111
"""What keeps another account from reading it; and what keeps ours from that, which owns it and is not root."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10
"""From <linux/memfd.h>; without it a file cannot be executed where sysctl vm.memfd_noexec is 1."""
_AT_BASE = 7
"""From <elf.h>: in the auxiliary vector, the address of what has loaded this process."""


class HelperUnavailable(Exception):
    """A helper cannot be started. The text says why and what to do; `exit_code` is one of os.EX_*."""

    def __init__(self, text: str, exit_code: int = os.EX_TEMPFAIL) -> None:
        super().__init__(text)
        self.exit_code = exit_code


async def start(module: str, account: Account, theirs: socket.socket, *more: socket.socket) -> SupervisedProcess:
    """Runs `module` as the account, with `theirs` as its descriptor 0, and `more` from FIRST_MORE on.

    Raises:
        HelperUnavailable: the launch was refused, or a step of it failed.
    """
    try:
        return await SupervisedProcess.start(_spec(module, account, theirs.fileno(), more))
    except NotStarted as e:
        raise HelperUnavailable(f"cannot start {module} as account {account.name!r}: {e}") from None
    except OSError as e:
        reason = f"no copy of what loads {sys.executable} can be made in memory or executed: {e.strerror}"
        raise HelperUnavailable(f"cannot start {module}: {reason}; see whether sysctl vm.memfd_noexec is 2") from None


async def connected(module: str, account: Account, *more: socket.socket) -> tuple[SupervisedProcess, socket.socket]:
    """The same with a new socket that keeps messages apart: the process, and our end. Raises HelperUnavailable."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            return await start(module, account, theirs, *more), ours
    except BaseException:
        ours.close()
        raise


def loader() -> int:
    """What loads programs, as a file in memory: mode 0711, and nobody can change it. Raises OSError.

    Made anew after an upgrade of the C library, whose loader and libraries only work together.
    """
    installed = os.stat(_loader_path())  # noqa: PTH116 - as below
    build = installed.st_dev, installed.st_ino, installed.st_mtime_ns
    return _loader_of(os.getpid(), build)  # who goes into the background forks, and closes all descriptors


@functools.cache
def _loader_of(_pid: int, _build: tuple[int, ...]) -> int:
    with open(_loader_path(), "rb") as ours:  # noqa: PTH123 - as below
        copy = _executable_in_memory()
        try:
            left = os.fstat(ours.fileno()).st_size
            while left:
                left -= os.sendfile(copy, ours.fileno(), None, left)
            os.fchmod(copy, _MODE if kernel.is_root() else _OWN_MODE)
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(copy)
            raise
    return copy


@functools.cache
def _loader_path() -> str:
    """The file that the kernel has had this process loaded by. Raises OSError: it has no such thing."""
    with open("/proc/self/auxv", "rb") as vector:  # noqa: PTH123 - as below
        base = dict(struct.iter_unpack("NN", vector.read()))[_AT_BASE]
    with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123 - what is in use, wherever it was found
        for line in maps:
            if base and int(line.split(b"-")[0], 16) == base:
                return os.fsdecode(line.split(maxsplit=5)[5].removesuffix(b"\n"))
    raise OSError(errno.ENOEXEC, "it is loaded by nothing but the kernel")


@functools.cache
def _library_path() -> dict[str, str]:
    """Where our Python's library is, if it has one: some look for it beside themselves, and so would the copy."""
    with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123 - what is in use, wherever it was found
        for line in maps:
            if b"/libpython3" in line:
                return {"LD_LIBRARY_PATH": os.path.dirname(os.fsdecode(line.split(maxsplit=5)[5]))}  # noqa: PTH120
    return {}


def _executable_in_memory() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(_NAME, flags | _MFD_EXEC)
    except OSError as e:
        if e.errno != errno.EINVAL:  # Linux before 6.3, where every such file can be executed
            raise
    return os.memfd_create(_NAME, flags)


def _spec(module: str, account: Account, connection: int, more: Sequence[socket.socket]) -> LaunchSpec:
    return LaunchSpec(
        argv=(_loader_path(), sys.executable, *_ARGUMENTS, module),  # by its name Python finds its packages
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/", MARK: "1", **_library_path()},
        username=account.name,
        uid=account.uid,
        gid=account.gid,
        groups=(account.gid,),
        directory="/",
        log=None,
        descriptors={0: connection, 1: 2, 2: 2, **{n: each.fileno() for n, each in enumerate(more, FIRST_MORE)}},
        program=loader(),
    )


with contextlib.suppress(OSError):  # it is told when a helper is started
    # Now: once a process cannot be dumped, it may not look at itself any more, unless it is root.
    _loader_path(), _library_path()
