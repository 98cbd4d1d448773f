"""Limits in words, as limits of processes, and compared with what the kernel has."""

from __future__ import annotations

import resource
from dataclasses import replace

from mep.monitor.containment import limits
from mep.profile.sections.resources import Resources

LIMITS = Resources(memory_max=8 * 2**30, tasks_max=512, cpu_quota=1.5)


def test_differences_are_named() -> None:
    assert limits.differences(LIMITS, LIMITS) == []
    assert limits.differences(Resources(), Resources()) == []
    rounded = Resources(memory_max=10_000_000, cpu_quota=1 / 3)
    assert limits.differences(rounded, Resources(memory_max=9_998_336, cpu_quota=0.33333)) == []
    assert limits.differences(LIMITS, Resources()) == [
        "8589934592 bytes of memory (the kernel has none)",
        "512 tasks (the kernel has none)",
        "1.5 processors (the kernel has none)",
    ]
    assert limits.differences(Resources(), replace(LIMITS, cpu_quota=None, memory_max=None)) == [
        "no limit of tasks (the kernel has 512)"
    ]
    assert len(limits.differences(LIMITS, Resources(8 * 2**30 + 2**20, 513, 1.6))) == 3


def test_limits_of_processes() -> None:
    assert limits.rlimits(LIMITS) == {resource.RLIMIT_NPROC: 512, resource.RLIMIT_DATA: 8 * 2**30}
    assert limits.rlimits(Resources(cpu_quota=1.0)) == {}


def test_sizes_are_readable() -> None:
    assert limits.describe(LIMITS) == "memory 8 GiB, 512 tasks, 1.5 processors"
    assert limits.describe(Resources(memory_max=1536 * 2**20)) == "memory 1.5 GiB"
