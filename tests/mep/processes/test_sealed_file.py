"""Sealed files in memory: they hold what was put in, nobody changes them, and a failure leaves nothing open."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mep.processes.sealed_file import sealed


@contextmanager
def limited(what: int, soft: int) -> Iterator[None]:
    """A lower limit for this process."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


@pytest.mark.parametrize("data", [b"", b"x", b"y" * (5 * 2**20)], ids=len)
def test_it_is_read_from_its_beginning_and_is_not_inherited(data: bytes) -> None:
    descriptor = sealed("question", data)
    assert not os.get_inheritable(descriptor)
    assert "question" in os.readlink(f"/proc/self/fd/{descriptor}")
    with os.fdopen(descriptor, "rb") as file:
        assert file.read() == data


def test_nobody_can_change_it() -> None:
    descriptor = sealed("question", b"one")
    for change in (
        lambda: os.write(descriptor, b"two"),
        lambda: os.ftruncate(descriptor, 1),
        lambda: os.ftruncate(descriptor, 99),
    ):
        with pytest.raises(PermissionError):
            change()
    assert os.pread(descriptor, 9, 0) == b"one"
    os.close(descriptor)


def test_without_memory_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    with limited(resource.RLIMIT_FSIZE, 2**16), pytest.raises(OSError, match="large"):
        sealed("question", b"x" * 2**20)
    assert os.listdir("/proc/self/fd") == before


def test_without_descriptors_there_is_an_error() -> None:
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    held = [os.dup(0) for _ in range(used - len(os.listdir("/proc/self/fd")) + 1)]  # no gap below
    with limited(resource.RLIMIT_NOFILE, used), pytest.raises(OSError, match="Too many open files"):
        sealed("question", b"x")
    for descriptor in held:
        os.close(descriptor)
