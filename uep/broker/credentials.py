"""Keeps the credentials that the manager gave last: where to consume and publish.

The hand-over holds the first credentials. Later ones come through a read-only file that the manager rewrites in
place: Fernet-encrypted JSON `{"amqp_creds": {...}}`, always read from its beginning; before the manager stops the
endpoint it may add `ending`, a text that says why. A read that falls into a rewrite does not decrypt; it is tried again
shortly, and in the end the last good credentials are used.

`endpoint` takes `last` when it connects for the first time and calls `refresh` whenever it connects again. Decryption
(`cryptography`, 25 ms to import) is needed only then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from uep.handover import HandOver
from wire.queues import EndpointCredentials, QueueInfoError, read_credentials

log = logging.getLogger(__name__)

LARGEST = 1 << 20
"""Bytes read of the file at most."""
ATTEMPTS = 5
PAUSE = 0.05
"""A torn read is tried again this often, with this many seconds between."""


class Credentials:
    """The credentials of one endpoint: `last` are the newest that were read, at first those of the hand-over.

    `amqp_port`, when given, replaces the port of each URL.
    """

    def __init__(self, handover: HandOver, amqp_port: int | None = None) -> None:
        self._fd = handover.credentials_fd
        self._key = handover.key
        self._port = amqp_port
        self.last = read_credentials(handover.credentials, amqp_port)

    async def refresh(self) -> None:
        """Reads the newest credentials into `last`; never raises."""
        if self._fd is None or self._key is None:
            return
        for _ in range(ATTEMPTS):
            try:
                self.last = self._read(self._fd, self._key)
                break
            except (ValueError, OSError) as e:
                log.debug("credential file not readable yet: %s", e)
                await asyncio.sleep(PAUSE)
        else:
            log.warning("the credential file cannot be read; going on with the last credentials")

    def ending(self) -> str:
        """Reads why the manager stops this endpoint, in words for the user; nothing, if it does not say."""
        if self._fd is None or self._key is None:
            return ""
        try:
            ending = _decrypt(os.pread(self._fd, LARGEST, 0), self._key).get("ending")
        except (ValueError, OSError):
            return ""
        return ending if isinstance(ending, str) else ""

    def _read(self, fd: int, key: str) -> EndpointCredentials:
        fresh = read_credentials(decrypt(os.pread(fd, LARGEST, 0), key), self._port)
        if fresh.endpoint_id != self.last.endpoint_id:
            raise QueueInfoError("the credential file is for another endpoint")
        return fresh


def decrypt(token: bytes, key: str) -> Mapping[str, Any]:
    """Reads `amqp_creds` out of an encrypted file's content.

    Raises:
        ValueError: the content is torn, foreign or not JSON.
    """
    fresh = _decrypt(token, key).get("amqp_creds")
    if not isinstance(fresh, dict):
        raise QueueInfoError("no amqp_creds inside")
    return fresh


def _decrypt(token: bytes, key: str) -> Mapping[str, Any]:
    from cryptography.fernet import Fernet, InvalidToken

    try:
        data = json.loads(Fernet(key).decrypt(token))
    except InvalidToken:
        raise ValueError("does not decrypt") from None
    return data if isinstance(data, dict) else {}
