"""A process gives up the network for good: the kernel makes it no socket any more, nor what it starts.

A helper that was taken over could otherwise send what it has seen to anybody. Pairs of connected sockets are still to
be had, and what is open stays open. By a filter of system calls (seccomp), which needs no right and no library; numbers
are those of <linux/audit.h>, <linux/seccomp.h>, <linux/bpf_common.h> and <asm/unistd.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from mep.privileged import kernel

_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Of each its name in the kernel, and the number of socket(2)."""
_IO_URING_SETUP = 425
"""The number of the call on all architectures. A ring makes sockets without socket(2)."""
_OTHER_NUMBERS = 0x40000000
"""From here on are those of another way to call an x86_64 kernel (x32)."""
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
"""Where the filter finds them."""
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EPERM


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid() -> None:
    """From here on this process, and whatever it starts, can make no socket. Says so on standard error where that
    cannot be had, and returns all the same: it is one wall of several."""
    machine, bits = os.uname().machine, 8 * ctypes.sizeof(ctypes.c_void_p)
    if machine not in _ARCHITECTURES or bits != 64:
        _say(f"nobody knows here how to on {machine} ({bits} bits)")
        return
    kernel.set_no_new_privileges()
    instructions = _filter(*_ARCHITECTURES[machine])
    try:
        kernel.filter_calls(ctypes.byref(_Program(len(instructions) // 8, instructions)))
    except OSError as e:  # a kernel that was built without filters
        _say(str(e))


def _filter(architecture: int, socket_number: int) -> bytes:
    """The instructions: code, jump if true, jump if not, value. Jumps count the instructions that are left out."""
    return b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, _ARCHITECTURE),
            (_EQUAL, 0, 5, architecture),  # calls of another one would have other numbers
            (_LOAD, 0, 0, _NUMBER),
            (_AT_LEAST, 3, 0, _OTHER_NUMBERS),
            (_EQUAL, 2, 0, socket_number),
            (_EQUAL, 1, 0, _IO_URING_SETUP),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _DENY),
        )
    )


def _say(why: str) -> None:
    print(f"{sys.argv[0]}: the network cannot be given up: {why}", file=sys.stderr, flush=True)
