"""A program of ours is executed: what it gets, and what is left of one that cannot be."""

from __future__ import annotations

import os
import resource

import pytest

from mep.processes import executed


def test_what_cannot_be_executed_leaves_nothing_open() -> None:
    """Descriptors have run out: each attempt would leave even fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = os.listdir("/proc/self/fd")
    reading, writing = os.pipe()
    resource.setrlimit(resource.RLIMIT_NOFILE, (executed._HIGH + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            executed._execute("mep.daemon.anew", {reading: 0, writing: 3})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(reading)
        os.close(writing)
    assert os.listdir("/proc/self/fd") == before
