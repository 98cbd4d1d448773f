"""Files in memory that nobody can change any more: what is too large for a message, and what a program reads.

Unlike a pipe such a file has no limit, and nobody has to wait until it has been read. `SealedFile` is one that we
hold and may pass on without looking into it; whoever must look reads it whole.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from mep.privileged.memory_file import fill, seal, unsealed

if TYPE_CHECKING:  # helpers have no other use for it, and it loads much
    from pathlib import Path

_CONTENT = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""What must hold for the content to stay what it is."""


def sealed(name: str, data: bytes) -> int:
    """A descriptor of a sealed file with `data`, to be read from its beginning. `name` is what /proc shows.

    Raises:
        OSError: no descriptor or memory to be had; nothing stays open.
    """
    descriptor = unsealed(name)
    try:
        fill(descriptor, data)
        seal(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class SealedFile:
    """A sealed file in memory that is ours until nobody refers to this object any more; then it is closed."""

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over. One that strangers sent is sealed only after `require`."""
        self.descriptor = descriptor

    @classmethod
    def of(cls, data: bytes) -> SealedFile:
        """A new one with that content. Raises OSError."""
        return cls(sealed("mep", data))

    @classmethod
    def empty(cls) -> SealedFile:
        """A new one that somebody has yet to fill, before `seal`. Raises OSError."""
        return cls(unsealed("mep"))

    @classmethod
    def copy(cls, path: Path) -> SealedFile:
        """A new one with the content of a file, which does not come into our memory. Raises OSError."""
        copy = cls.empty()
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            while os.sendfile(copy.descriptor, source, None, 2**20):
                pass
        finally:
            os.close(source)
        copy.seal()
        return copy

    def seal(self) -> None:
        """From here on nobody can change it. Raises OSError."""
        seal(self.descriptor)

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return os.fstat(self.descriptor).st_size

    def require(self, most: int) -> None:
        """Returns if nobody can change the content, and it has at most that many bytes.

        Raises:
            ValueError: that is no file in memory, others can still change it, or it is too large.
        """
        try:
            seals = fcntl.fcntl(self.descriptor, fcntl.F_GET_SEALS)
        except OSError:  # other kinds of files have none, so reading this one never waits
            raise ValueError("a descriptor is no file in memory") from None
        if seals & _CONTENT != _CONTENT:
            raise ValueError("a file is not sealed")
        if self.size > most:
            raise ValueError(f"a file has {self.size} bytes; the limit is {most}")

    def read(self) -> bytes:
        """The whole content."""
        size, data = self.size, bytearray()
        while len(data) < size and (chunk := os.pread(self.descriptor, size - len(data), len(data))):
            data += chunk
        return bytes(data)

    def close(self) -> None:
        """Gives it up; may be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()
