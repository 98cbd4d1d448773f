"""The file through which a running user endpoint gets fresh AMQP credentials.

It lies under `/run/mep` (memory, root's), so that a later manager can go on refreshing it. The user endpoint holds it
open for reading only; what it reads is encrypted with a key that only the two have (public package: Fernet).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken


@dataclass(frozen=True)
class CredentialFile:
    """The credential file of one user endpoint, and its key (as text)."""

    path: Path
    key: str = field(repr=False)

    @classmethod
    def create(cls, path: Path, credentials: Mapping[str, Any]) -> CredentialFile:
        """Writes `credentials` (an `amqp_creds` object) into a new file."""
        file = cls(path, Fernet.generate_key().decode())
        file.path.unlink(missing_ok=True)
        file.path.touch(mode=0o600)
        file.refresh(credentials)
        return file

    def refresh(self, credentials: Mapping[str, Any], ending: str = "") -> None:
        """Replaces the content, in full or not at all. In place: the reader keeps its descriptor.

        It may read half; then it reads again. ending: why the user endpoint is about to be stopped, in words for its
        user, whose tasks it answers with them.

        Raises:
            OSError: the file system is full, for example; the content is what it was before.
        """
        sealed = self.seal(credentials, ending)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            before = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            try:
                os.posix_fallocate(descriptor, 0, len(sealed))  # the room for all of it, before anything is changed
                _write(descriptor, sealed)
            except OSError:
                _write(descriptor, before)  # which has its room
                raise
        finally:
            os.close(descriptor)

    def seal(self, credentials: Mapping[str, Any], ending: str = "") -> bytes:
        """`credentials` as they stand in the file."""
        content = {"amqp_creds": credentials, **({"ending": ending} if ending else {})}
        text = json.dumps(content, separators=(",", ":"))
        return Fernet(self.key).encrypt(text.encode())

    def unseal(self, sealed: bytes) -> dict[str, Any]:
        """What `seal` has sealed. Raises ValueError, KeyError, TypeError."""
        try:
            credentials: dict[str, Any] = json.loads(Fernet(self.key).decrypt(sealed))["amqp_creds"]
        except InvalidToken:
            raise ValueError("does not decrypt") from None
        return credentials

    def open_for_reading(self) -> int:
        """A read-only descriptor of the file."""
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _write(descriptor: int, data: bytes) -> None:
    """The whole content of the file."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)
    os.ftruncate(descriptor, len(data))
