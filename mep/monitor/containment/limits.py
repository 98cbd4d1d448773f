"""The limits of a profile (`resources`) in words, as limits of processes, and compared with what the kernel has."""

from __future__ import annotations

import resource

from mep.privileged import kernel
from mep.profile.sections.resources import Resources

_PAGE = resource.getpagesize()


def without_systemd(resources: Resources) -> str:
    """What holds where systemd does not run, or takes no orders from us."""
    why = "systemd does not run here" if kernel.is_root() else "this manager is not root"
    text = f"user endpoints run without scopes, because {why}"
    weaker = {
        "memory": (resources.memory_max, "memory_max holds for the data of each process, not for an account"),
        "tasks": (resources.tasks_max, "tasks_max counts all processes of an account, its logins included"),
        "cpu": (resources.cpu_quota, "cpu_quota is not enforced"),
    }
    said = [words for limit, words in weaker.values() if limit is not None]
    outlives = "a process that changes its session and loses its parent outlives its user endpoint"
    said.append(f"where the kernel has no audit, {outlives}")
    return f"{text}: {'; '.join(said)}"


def rlimits(resources: Resources) -> dict[int, int]:
    """The nearest that limits of processes come (setrlimit(2)): for the child, where there is no scope.

    RLIMIT_DATA rather than RLIMIT_AS: since Linux 4.7 it counts private writable memory, however it was got; address
    space that is only reserved (GPU libraries, Java, Go) or read from files counts for RLIMIT_AS and would stop honest
    programs early. Neither counts memory that processes share, and both hold for each process alone.
    """
    limits = {resource.RLIMIT_NPROC: resources.tasks_max, resource.RLIMIT_DATA: resources.memory_max}
    return {key: limit for key, limit in limits.items() if limit is not None}


def describe(resources: Resources) -> str:
    """For example `memory 8 GiB, 512 tasks, 1.5 processors`."""
    parts = []
    if resources.memory_max is not None:
        parts.append(f"memory {size(resources.memory_max)}")
    if resources.tasks_max is not None:
        parts.append(f"{resources.tasks_max} tasks")
    if resources.cpu_quota is not None:
        parts.append(f"{resources.cpu_quota:g} processors")
    return ", ".join(parts) or "no limits"


def differences(wanted: Resources, found: Resources) -> list[str]:
    """What is not as wanted, a text each. The kernel counts memory in pages, systemd processors in parts."""
    wrong = []
    if not _near(wanted.memory_max, found.memory_max, _PAGE):
        wrong.append(f"{_or_none(wanted.memory_max, 'bytes')} of memory (the kernel has {found.memory_max or 'none'})")
    if not _near(wanted.tasks_max, found.tasks_max, 0.5):
        wrong.append(f"{_or_none(wanted.tasks_max, 'tasks')} (the kernel has {found.tasks_max or 'none'})")
    if not _near(wanted.cpu_quota, found.cpu_quota, 0.01 * (wanted.cpu_quota or 0)):
        wrong.append(f"{_or_none(wanted.cpu_quota, 'processors')} (the kernel has {found.cpu_quota or 'none'})")
    return wrong


def _near(wanted: float | None, found: float | None, off: float) -> bool:
    if wanted is None or found is None:
        return wanted is found
    return abs(wanted - found) < off


def _or_none(limit: float | None, unit: str) -> str:
    return f"no limit of {unit}" if limit is None else f"{limit} {unit}"


def size(count: int) -> str:
    """For example `8 GiB`."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 2**power:
            return f"{round(count / 2**power, 1):g} {unit}"
    return f"{count} bytes"
