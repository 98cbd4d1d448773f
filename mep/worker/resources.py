"""Memory and processor time, as the kernel counts them: of user endpoints, by their cgroup, else by their processes;
and of the manager's own processes.

The worker has no rights: what `hidepid` keeps from it stays unknown. Read on a thread (`api`), not in the event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from pathlib import Path

_LONGEST = 4096
"""Bytes of a file of the kernel's that are read."""
_MOST_PROCESSES = 200
"""Of one user endpoint without a cgroup; there are more only where somebody does harm."""
_USAGE = "usage_usec"
_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12
"""Fields of /proc/PID/stat after the name, which is in parentheses (proc(5))."""
_OURS = {
    "mep.worker.program": "worker",
    "mep.mapper.server": "mapper",
    "mep.accounts.server": "name service",
    "mep.renderer.server": "renderer",
    "mep.monitor.audit_program": "audit",
}
"""What lives as long as the manager does: module, and what it is called."""
Used = tuple[int | None, float | None]
"""Bytes of memory, and seconds of processor time since the start. None: not known."""


def used(cgroup: str | None, pid: int) -> Used:
    """What a user endpoint uses, with all that it has started."""
    if cgroup is not None:
        return _memory(Path(cgroup)), _seconds(Path(cgroup))
    processes = [_of_process(each) for each in _tree(pid)]
    seen = [each for each in processes if each is not None]
    return (sum(memory for memory, _ in seen), sum(cpu for _, cpu in seen)) if seen else (None, None)


def of_manager(pid: int, others: Set[int]) -> dict[str, tuple[int, float]]:
    """What the manager and the programs that serve it use. others: children of the manager that are not to be read."""
    found = {"manager": pid}
    for child in map(int, _words(Path(f"/proc/{pid}/task/{pid}/children"))):
        if child not in others and (name := _OURS.get(_module(child))):
            found[name] = child
    return {name: used for name, process in found.items() if (used := _of_process(process)) is not None}


def _module(pid: int) -> str:
    """Which Python module a process runs; nothing when it is none."""
    arguments = _text(Path(f"/proc/{pid}/cmdline")).split("\0")
    return arguments[arguments.index("-m") + 1] if "-m" in arguments[:-1] else ""


def _memory(folder: Path) -> int | None:
    for name in ("memory.current", "memory.usage_in_bytes"):
        if (words := _words(folder / name)) and words[0].isdigit():
            return int(words[0])
    return None


def _seconds(folder: Path) -> float | None:
    words = _words(folder / "cpu.stat")
    if _USAGE in words:
        return int(words[words.index(_USAGE) + 1]) / 1e6
    for controller in ("cpu,cpuacct", "cpuacct"):  # version 1, where each controller has a tree of its own
        there = Path(*[controller if part == "memory" else part for part in folder.parts])
        if words := _words(there / "cpuacct.usage"):
            return int(words[0]) / 1e9
    return None


def _tree(pid: int) -> Iterator[int]:
    left, seen = [pid], 0
    while left and seen < _MOST_PROCESSES:
        seen += 1
        yield (each := left.pop())
        left += [int(word) for word in _words(Path(f"/proc/{each}/task/{each}/children"))]


def _of_process(pid: int) -> tuple[int, float] | None:
    pages, said = _words(Path(f"/proc/{pid}/statm")), _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if not pages or len(said) <= _STIME:
        return None
    ticks = int(said[_UTIME]) + int(said[_STIME])
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE"), ticks / _TICKS


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read(_LONGEST) or b"").decode("ascii", "replace")
    except OSError:
        return ""
