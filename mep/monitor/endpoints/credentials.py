"""The file through which a running user endpoint gets fresh AMQP credentials.

It lies under `/run/mep` (memory, root's), so that a later manager can go on refreshing it. The user endpoint holds it
open for reading only; what it reads is encrypted with a key that it has from the hand-over (public package: Fernet).
The monitor makes the keys, and copies what the worker has sealed with them: what that holds it does not read.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mep.request.credentials import Credentials

TOKEN = re.compile(rb"[A-Za-z0-9_-]+={0,2}")
"""The form of what is in the file: it goes into JSON texts, too."""
KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
"""The form of a key."""


class NotSealed(Exception):
    """Credentials could not be sealed or opened. The text says why."""


class Sealer(Protocol):
    """Who reads credentials: `worker_process`."""

    async def seal(self, credentials: Credentials, key: str, ending: str = "") -> Credentials:
        """What a user endpoint reads, sealed with its key. ending: why it is about to be stopped, in words for its
        user, whose tasks it answers with them. Raises NotSealed."""

    async def open(self, credentials: Credentials) -> Credentials:
        """The same without a key. Raises NotSealed."""


def new_key() -> str:
    """A key for one user endpoint, as Fernet has them."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@dataclass(frozen=True)
class CredentialFile:
    """The credential file of one user endpoint, and its key (as text)."""

    path: Path
    key: str = field(repr=False)

    @classmethod
    def create(cls, path: Path, sealed: Credentials) -> CredentialFile:
        """A new file with what has been sealed with a new key."""
        file = cls(path, sealed.key)
        file.path.unlink(missing_ok=True)
        file.path.touch(mode=0o600)
        file.refresh(sealed)
        return file

    def refresh(self, sealed: Credentials) -> None:
        """Replaces the content, in full or not at all. In place: the reader keeps its descriptor.

        It may read half; then it reads again. sealed: with the key of this file.

        Raises:
            OSError: the file system is full, for example; the content is what it was before.
        """
        token = sealed.file.read()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            before = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            try:
                os.posix_fallocate(descriptor, 0, len(token))  # the room for all of it, before anything is changed
                _write(descriptor, token)
            except OSError:
                _write(descriptor, before)  # which has its room
                raise
        finally:
            os.close(descriptor)

    def open_for_reading(self) -> int:
        """A read-only descriptor of the file."""
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _write(descriptor: int, data: bytes) -> None:
    """The whole content of the file."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)
    os.ftruncate(descriptor, len(data))
