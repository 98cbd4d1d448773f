"""The orders of admins that stay, on disk: what is drained and who is banned, after a restart and an upgrade, too.

One file of root's, replaced as a whole: a mark, a digest of the rest, and records of one size. Nothing in it is parsed.
`orders` has it read and written, in a forked child; `cli.dry_run` reads it, too.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mep.processes.control_protocol import MOST_REASON, MOST_TARGET, Kind, read_text
from mep.profile import whole_file

NAME = "orders"
MOST = 256
"""Records of a file."""
STAY = frozenset({Kind.DRAIN, Kind.BAN, Kind.BAN_AND_END})
"""The kinds that do."""
_MARK = b"mep orders, version 1\n"
_RECORD = struct.Struct(f"!HxxIII{MOST_TARGET}s{MOST_REASON}s")
_DIGEST_SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Order:
    """An order that stays. by: the uid of who gave it. at, until: seconds since the epoch; until 0: no end."""

    kind: Kind
    target: str
    reason: str
    by: int
    at: int
    until: int


def path(folder: Path) -> Path:
    """Where the file is, in the folder of a profile's orders."""
    return folder / NAME


def read(folder: Path) -> list[Order]:
    """The orders in the folder; none when there is no file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what was written, or others than we can change it.
    """
    try:
        descriptor = os.open(path(folder), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise ValueError("it is no file that only we can write to")
        data = file.read(len(_MARK) + _DIGEST_SIZE + MOST * _RECORD.size + 1)
    return _parse(data)


def write(folder: Path, orders: Iterable[Order]) -> None:
    """Replaces the file, whole or not at all, and returns when that is on the disk itself. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    records = b"".join(
        _RECORD.pack(each.kind, each.by, each.at, each.until, each.target.encode(), each.reason.encode())
        for each in orders
    )
    whole_file.replace(path(folder), _MARK + hashlib.sha256(records).digest() + records, durable=True)
    whole_file.sync(folder)


def _parse(data: bytes) -> list[Order]:
    mark, digest = data[: len(_MARK)], data[len(_MARK) : len(_MARK) + _DIGEST_SIZE]
    records = data[len(_MARK) + _DIGEST_SIZE :]
    if mark != _MARK:
        raise ValueError("it does not begin as this version writes it")
    if len(records) % _RECORD.size or hashlib.sha256(records).digest() != digest:
        raise ValueError("it is not as it was written")
    return [_order(*record) for record in _RECORD.iter_unpack(records)]


def _order(kind: int, by: int, at: int, until: int, target: bytes, reason: bytes) -> Order:
    if Kind(kind) not in STAY:
        raise ValueError("it has an order that does not stay")
    return Order(Kind(kind), read_text(target), read_text(reason), by, at, until)
