"""A folder that hangs, as one on a file server that does not answer: whoever looks into it waits, and cannot be killed.

    with HangingFolder(path) as hanging:
        ...  # a process does os.stat(path / "anything")
        hanging.take()  # it has been heard, and will never be answered; from now on SIGKILL does nothing
    # it ended with an error

A FUSE file system of root's, without a program behind it. Needs root and /dev/fuse.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

from lab.process import Running

DEVICE = Path("/dev/fuse")

_INIT = 26
_REQUEST = struct.Struct("=IIQQIIII")
_ANSWER = struct.Struct("=IiQ")
_PROTOCOL = struct.Struct("=IIIIHHIIHHI28x")
_LARGEST = 2**17
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class HangingFolder(Running):
    """`start` makes what is asked of the folder hang, `stop` ends that with errors; a context manager does both."""

    def __init__(self, path: Path) -> None:
        """`path` is an empty folder."""
        self.path = path
        self._device: int | None = None

    def start(self) -> None:
        """Mounts. Raises OSError: no FUSE to be had here."""
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        options = f"fd={device},rootmode=40755,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"hanging", os.fsencode(self.path), b"fuse", 0, options.encode()) != 0:
            os.close(device)
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(self.path))
        self._device = device

    def stop(self) -> None:
        """Ends all waiting with errors, and unmounts."""
        device, self._device = self._device, None
        if device is not None:
            os.close(device)
            _libc.umount2(os.fsencode(self.path), _DETACH)

    def take(self) -> int:
        """Takes what was asked since, to answer none of it; how much that was. The first greeting is answered."""
        assert self._device is not None
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                request = os.read(self._device, _LARGEST)
                _, kind, number, *_ = _REQUEST.unpack_from(request)
                if kind == _INIT:
                    self._greet(number)
                else:
                    taken += 1
        return taken

    def _greet(self, number: int) -> None:
        assert self._device is not None
        greeting = _PROTOCOL.pack(7, 31, 0, 0, 16, 12, 65536, 1, 16, 0, 0)
        os.write(self._device, _ANSWER.pack(_ANSWER.size + len(greeting), 0, number) + greeting)
