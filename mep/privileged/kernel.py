"""Kernel calls that the standard library does not have: prctl(2), capset(2), keyctl(2) and close_range(2).

Called by `become` and `launch` in the child between fork and exec: the C library is looked up at import, before any
fork. Constants are those of <linux/prctl.h> and <linux/capability.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "riscv64": 219,
    "loongarch64": 219,
    "ppc64le": 271,
    "ppc64": 271,
    "s390x": 280,
}
"""The number of the call for 64-bit programs, by processor architecture."""
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CLOSE_RANGE = 436
"""The number of the call on all of these architectures."""
_LOGIN_UID = "/proc/self/loginuid"
HANDLED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGWINCH,
)
"""What a process of ours may have a handler for. It is blocked around each fork: one that comes before the child has
reset its handlers must not be taken for one to the parent. Python makes an object of each signal that
is blocked, twice: there are 62."""


def is_root() -> bool:
    """Whether this process may become other accounts. An ordinary user's manager is not, and starts its own alone."""
    return os.geteuid() == 0


def last_capability() -> int:
    """The number of the running kernel's highest capability."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as f:  # noqa: PTH123 - no pathlib between fork and exec
        return int(f.read())


def set_dumpable(dumpable: bool) -> None:
    """Whether others of the same uid may read this process's memory. exec sets it anew."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def end_if_dumpable() -> None:
    """Ends a helper that others of the same uid could look into since its exec: they may have changed it."""
    if _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1:
        sys.exit("this process can be traced by every other one of its account, and does not begin")


def end_with_parent() -> None:
    """From here on the kernel kills this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def outlive_parent() -> None:
    """Undoes `end_with_parent`, as becoming another account does."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def set_no_new_privileges() -> None:
    """From here on no exec gives more rights: set-uid programs run as the caller. Cannot be undone; inherited."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def filter_calls(program: Any) -> None:
    """Has the kernel ask the filter `program` (a pointer to `struct sock_fprog`) before each system call. Cannot be
    undone; inherited. Without rights it needs `set_no_new_privileges` before. Raises OSError."""
    if _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), program, 0, 0) != 0:
        raise _errno()


def clear_bounding_set(last: int) -> None:
    """Takes every capability up to number `last` out of what any later exec could give. Needs CAP_SETPCAP."""
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)


def clear_capabilities() -> None:
    """Empties the ambient, effective, permitted and inheritable sets."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    empty = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, empty) != 0:
        raise _errno()


def join_new_session_keyring() -> None:
    """Leaves the session keyring that was inherited: possession of a keyring beats the uid.

    A kernel without keyrings, and one that lets this process use none, has nothing to leave.

    Raises:
        OSError: the kernel refuses, or has a number for this call that nobody knows here.
    """
    number = _keyctl()
    if _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        error = _errno()
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise error


def close_from(first: int) -> None:
    """Closes all descriptors from number `first` on, also those above a limit that was lowered later."""
    if _libc.syscall(_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(2**32 - 1), 0) == 0:
        return
    error = _errno()
    if error.errno not in (errno.ENOSYS, errno.EPERM):  # Linux before 5.9; a filter of a container
        raise error
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _keyctl() -> int:
    machine, bits = os.uname().machine, 8 * ctypes.sizeof(ctypes.c_void_p)
    if machine not in _KEYCTL or bits != 64:
        raise OSError(errno.ENOSYS, f"keyctl(2) has a number on {machine} ({bits} bits) that is not known here")
    return _KEYCTL[machine]


def capability_sets() -> dict[str, int]:
    """The five capability sets and the no-new-privileges flag of this process, as the kernel reports them."""
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
    with open("/proc/self/status", encoding="ascii", errors="replace") as f:  # noqa: PTH123 - as above
        pairs = (line.split(":\t", 1) for line in f if ":\t" in line)
        return {name: int(value, 16) for name, value in pairs if name in names}


def login_uid() -> int | None:
    """The login uid of this process, 2**32 - 1 while it is unset; None where the kernel has no audit."""
    try:
        with open(_LOGIN_UID, encoding="ascii") as f:  # noqa: PTH123 - as above
            return int(f.read())
    except FileNotFoundError:
        return None


def set_login_uid(uid: int) -> None:
    """Makes `uid` the login uid of this process. Takes no right while it is unset; who has none cannot change it after.

    Raises:
        OSError: the kernel has no audit, or does not let the one that is set be changed.
    """
    descriptor = os.open(_LOGIN_UID, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(uid).encode())
    finally:
        os.close(descriptor)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise _errno()


def _errno() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
