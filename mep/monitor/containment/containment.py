"""Containment: what an account's user endpoints may use together, and that all a user endpoint started ends with it.

    containment = Containment("prod")
    unit = await containment.contain(pid, name, uid, resources)     # the child is held before its exec meanwhile
    await containment.kill(process, unit)

`manager` makes one, `children` calls it, `mep check` calls `probe`. With systemd, a user endpoint lives in a scope:

    mep.slice
      mep-prod.slice                  all of a profile; the site may limit it with a drop-in
        mep-prod-1001.slice           all of an account, with the limits of config.yaml; gone with its last scope
          mep-prod-uep.NAME-4711.scope

The limits are the slice's: a limit per user endpoint holds nobody who starts many. They are believed only when they
were read back from the kernel. The scope is not part of the manager's service and outlives its restarts; at power-off
systemd stops it as it does the service, before network and file systems go. Limits of memory do not count swap space.

Not in the scope is what another service starts for the user: cron, at, a user's own systemd where the site has that.

Without systemd there are limits for each process (`rlimits`), and `kill_tree` finds what belongs together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from mep.monitor.containment.systemd import ContainmentError as ContainmentError
from mep.monitor.containment.systemd import Properties, Refused, Systemd
from mep.processes.process import Invisible, Process
from mep.profile.resources import Resources

STOP_TIMEOUT = 10.0
"""Seconds from SIGTERM to SIGKILL for what a user endpoint left behind."""

_INFINITY = 2**64 - 1
"""What systemd calls `infinity`."""
_UNLIMITED = 2**62
"""From here on, a limit of memory of cgroups v1 is none: it has no word for that."""
_ROUNDS = 20
_EXISTS, _UNKNOWN_PROPERTY = "UnitExists", "PropertyReadOnly"
"""What systemd calls its refusals."""
_PAGE = resource.getpagesize()
_FILES = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
_FILES_V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"}
_WORDS = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.")


def booted() -> bool:
    """Whether systemd manages this system (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


class Containment:
    """Of one profile. Belongs to the event loop; everything that waits has a timeout."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._prefix = f"mep-{escape(profile)}"
        self._systemd = Systemd() if booted() else None

    def scope(self, name: str, pid: int) -> str | None:
        """The name of the scope into which `contain` puts a process. None without systemd."""
        return None if self._systemd is None else f"{self._prefix}-{escape(name, keep='-')}-{pid}.scope"

    async def contain(self, pid: int, name: str, uid: int, resources: Resources) -> str | None:
        """Puts a process into a scope of its own, below the slice of its account with these limits.

        Returns the scope's name; None without systemd. Raises ContainmentError, which names what is not in force; the
        process may be in the scope then, and is still the caller's to end.
        """
        scope = self.scope(name, pid)
        if self._systemd is None or scope is None:
            return None
        slice_ = f"{self._prefix}-{uid}.slice"
        whose = f"uid {uid}, endpoint {self._profile}"
        properties = [
            ("Description", ("s", f"{name} of {whose}")),
            ("PIDs", ("au", [pid])),
            ("Slice", ("s", slice_)),
            *_SCOPE,
        ]
        users = [("Description", ("s", f"User endpoints of {whose}")), *_SLICE, *_limits(resources)]
        await _start(self._systemd, scope, properties, slice_, users)
        cgroups = _cgroups_of(pid)
        main = cgroups.get("name=systemd", cgroups.get("", ""))
        if not main.endswith(f"/{slice_}/{scope}"):
            raise ContainmentError(f"{scope}: systemd has started it, but process {pid} is in {main or 'no cgroup'}")
        await _enforce(self._systemd, slice_, lambda: _cgroups_of(pid), resources)
        return scope

    async def kill(self, process: Process, unit: str | None) -> None:
        """SIGKILL to a user endpoint and all that it started. `unit` is what `contain` returned.

        Harmless when all have ended. When systemd cannot be asked, raises ContainmentError after `kill_tree`.
        """
        if self._systemd is None or unit is None:
            await kill_tree(process)
            return
        try:
            await self._systemd.kill(unit, signal.SIGKILL)
        except ContainmentError:
            await kill_tree(process)
            raise

    async def stop(self, process: Process, unit: str | None) -> None:
        """Ends what a user endpoint left that has ended itself: SIGTERM, and SIGKILL after STOP_TIMEOUT.

        Does not wait for it. Without a scope, SIGKILL at once. Raises as `kill` does.
        """
        if self._systemd is None or unit is None:
            await kill_tree(process)
            return
        try:
            await self._systemd.stop(unit)
        except ContainmentError:
            await kill_tree(process)
            raise

    async def probe(self, resources: Resources) -> str:
        """A sentence for log and `mep check`: what holds, tried out with a slice that is gone afterwards.

        Raises ContainmentError with a sentence that says what cannot be enforced.
        """
        if self._systemd is None:
            if resources:
                raise ContainmentError(without_systemd(resources))
            return without_systemd(resources)
        slice_ = f"{self._prefix}-probe{os.getpid()}.slice"
        try:
            await self._systemd.start(slice_, [*_SLICE_STAYS, *_limits(resources)])
            path = await self._systemd.control_group(slice_)
            here = dict.fromkeys(_cgroups_of(os.getpid()), path)
            await _enforce(self._systemd, slice_, lambda: here, resources)
            version = await self._systemd.version()
        finally:
            with contextlib.suppress(ContainmentError):  # what came before says more
                await self._systemd.stop(slice_)
        said = f"{describe(resources)} per account, as read back" if resources else "no limits are set"
        return f"user endpoints run in scopes of systemd {version} below {self._prefix}.slice; {said}"

    def close(self) -> None:
        """Closes the connection to systemd, if any. Scopes stay."""
        if self._systemd is not None:
            self._systemd.close()


def without_systemd(resources: Resources) -> str:
    """What holds where systemd does not run."""
    text = "user endpoints run without scopes, because systemd does not run here"
    weaker = {
        "memory": (resources.memory_max, "memory_max holds for the data of each process, not for an account"),
        "tasks": (resources.tasks_max, "tasks_max counts all processes of an account, its logins included"),
        "cpu": (resources.cpu_quota, "cpu_quota is not enforced"),
    }
    said = [words for limit, words in weaker.values() if limit is not None]
    said.append("a process that changes its session and loses its parent outlives its user endpoint")
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
        parts.append(f"memory {_size(resources.memory_max)}")
    if resources.tasks_max is not None:
        parts.append(f"{resources.tasks_max} tasks")
    if resources.cpu_quota is not None:
        parts.append(f"{resources.cpu_quota:g} processors")
    return ", ".join(parts) or "no limits"


def escape(text: str, keep: str = "") -> str:
    """As `systemd-escape` does, for one part of a unit's name: `my-site` is `my\\x2dsite`, as '-' nests slices."""
    words = _WORDS | set(keep.encode())
    escaped = "".join(chr(byte) if byte in words else f"\\x{byte:02x}" for byte in text.encode())
    return escaped.replace(".", "\\x2e", 1) if escaped.startswith(".") else escaped


# With systemd: what is asked for.

_SCOPE: Properties = [
    ("CollectMode", ("s", "inactive-or-failed")),
    ("KillMode", ("s", "control-group")),
    ("SendSIGKILL", ("b", True)),
    ("TimeoutStopUSec", ("t", int(STOP_TIMEOUT * 1e6))),
    ("TasksMax", ("t", _INFINITY)),  # what counts is the slice's, not the system's default for a scope
    # Only the order at power-off. Nothing ties it to the manager's service, not even an order: that would make it wait
    # for the end of the service's own start or reload.
    ("After", ("as", ["local-fs.target", "remote-fs.target", "network.target", "nss-user-lookup.target"])),
]
_OOM: Properties = [("OOMPolicy", ("s", "continue"))]
"""A task that runs out of memory is its user's misfortune; by default it would end the whole scope. Where systemd does
not know this of scopes, it does not end them."""
_SLICE_STAYS: Properties = [("CollectMode", ("s", "inactive-or-failed"))]
_SLICE: Properties = [*_SLICE_STAYS, ("StopWhenUnneeded", ("b", True))]


def _limits(resources: Resources) -> Properties:
    memory, tasks, cpu = resources.memory_max, resources.tasks_max, resources.cpu_quota
    return [
        ("MemoryMax", ("t", _INFINITY if memory is None else memory)),
        ("TasksMax", ("t", _INFINITY if tasks is None else tasks)),
        ("CPUQuotaPerSecUSec", ("t", _INFINITY if cpu is None else round(cpu * 1e6))),
    ]


async def _start(systemd: Systemd, scope: str, properties: Properties, slice_: str, users: Properties) -> None:
    """Starts a scope, and its slice unless that is there. What was there already is seen by who reads back."""
    wishes, also = [*properties, *_OOM], [(slice_, users)]
    while True:
        try:
            return await systemd.start(scope, wishes, also)
        except Refused as refused:
            if refused.kind == _UNKNOWN_PROPERTY and len(wishes) > len(properties):
                wishes = properties
            elif refused.kind == _EXISTS and also:
                also = []  # a slice that goes right now is made anew without these, and then stays, empty, at its end
            elif refused.kind == _EXISTS:
                return None
            else:
                raise


async def _enforce(
    systemd: Systemd, slice_: str, cgroups: Callable[[], Mapping[str, str]], resources: Resources
) -> None:
    """Sees to it that a slice has these limits and no others. Raises ContainmentError if the kernel says otherwise."""
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    if not differences(resources, read_limits(slice_, cgroups(), mounts)):
        return
    await systemd.change(slice_, _limits(resources))
    # With version 1, the first limit of a kind moves processes to a cgroup: so these are asked for again.
    wrong = differences(resources, read_limits(slice_, cgroups(), mounts))
    if wrong:
        raise ContainmentError(
            f"{slice_}: not in force: {'; '.join(wrong)}. Either the kernel offers systemd no such controller"
            " (cgroup_disable= on its command line?), or the key `resources` of config.yaml asks for more than it takes"
        )


# With systemd: what the kernel says.


def _cgroups_of(pid: int) -> dict[str, str]:
    try:
        return parse_cgroups(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        raise ContainmentError(f"process {pid} has ended, or /proc does not show it (hidepid?)") from None


def parse_cgroups(text: str) -> dict[str, str]:
    """Controller to path, from /proc/PID/cgroup (cgroups(7)). That of version 2 is ""."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def parse_mounts(text: str) -> dict[str, tuple[str, Path]]:
    """Controller to (path that is mounted, where), from /proc/PID/mountinfo. That of version 2 is ""."""
    found: dict[str, tuple[str, Path]] = {}
    for line in text.splitlines():
        place, _, rest = line.partition(" - ")
        root, point = place.split()[3:5]
        kind, _, options = rest.split(" ", 2)
        for controller in {"cgroup": options.split()[-1].split(","), "cgroup2": [""]}.get(kind, []):
            found.setdefault(controller, (root, Path(point)))
    return found


def read_limits(slice_: str, cgroups: Mapping[str, str], mounts: Mapping[str, tuple[str, Path]]) -> Resources:
    """The limits of a slice as the kernel has them, in cgroups of version 1 or 2; None where it has none.

    cgroups, mounts: of a process in the slice or below it, from `parse_cgroups`, `parse_mounts`.
    """
    said = {}
    for controller in _FILES:
        version_1 = controller in cgroups and controller in mounts
        key, name = (controller, _FILES_V1[controller]) if version_1 else ("", _FILES[controller])
        folder = _folder(slice_, cgroups.get(key, ""), mounts.get(key))
        said[controller] = _numbers(folder, name)
    memory, tasks, cpu = said["memory"], said["pids"], said["cpu"]
    return Resources(
        memory_max=int(memory[0]) if memory and memory[0] < _UNLIMITED else None,
        tasks_max=int(tasks[0]) if tasks else None,
        cpu_quota=cpu[0] / cpu[1] if cpu else None,
    )


def _folder(slice_: str, path: str, mount: tuple[str, Path] | None) -> Path | None:
    """The folder of a slice, from a path at or below it."""
    parts = path.split("/")
    if mount is None or slice_ not in parts:
        return None
    root, point = mount
    return point / os.path.relpath("/".join(parts[: parts.index(slice_) + 1]), root)


def _numbers(folder: Path | None, name: str) -> list[int]:
    """What a file of a cgroup limits to; nothing for no limit. Version 1 has the period of `cpu` in a second file."""
    names = [name, "cpu.cfs_period_us"] if name == "cpu.cfs_quota_us" else [name]
    try:
        words = [word for file in names for word in (folder / file).read_text().split()] if folder else []
    except OSError:
        return []
    return [] if words[:1] in ([], ["max"], ["-1"]) else [int(word) for word in words]


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


def _size(count: int) -> str:
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 2**power:
            return f"{round(count / 2**power, 1):g} {unit}"
    return f"{count} bytes"


# Without systemd.


async def kill_tree(process: Process) -> int:
    """SIGKILL to a process and all that belongs to it; how many that were. Harmless when there is none.

    What belongs to it: its session and its process group, also when it has ended itself; its descendants; and their
    sessions and groups. Not found is what was started by one that has ended, in a session of its own (a daemon), and
    what forks and ends faster than /proc can be read. Only what has the real uid `process.uid` ever gets a signal: not
    a child that is still root, nor another account. Others have their turn after each reading of /proc.
    """
    if _has_gone_to_another(process):
        return 0
    family, stopped = {process.pid}, set[psutil.Process]()
    for _ in range(_ROUNDS):
        # Stopped first: what is killed makes room for new ones below RLIMIT_NPROC, what is stopped does not.
        new = _members(family, process.uid) - stopped
        if not new:
            break
        for member in new:
            _signal(member, process.uid, signal.SIGSTOP)
        stopped |= new
        await asyncio.sleep(0)
    for member in stopped:
        _signal(member, process.uid, signal.SIGKILL)
    return len(stopped)


def _has_gone_to_another(process: Process) -> bool:
    """Whether the pid is another process's; it is not as long as it names a session or group with anybody in it."""
    try:
        return Process.of(process.pid, process.uid).start_time != process.start_time
    except Invisible:
        return False


def _members(family: set[int], uid: int) -> set[psutil.Process]:
    """All processes of an account whose pid, parent, session or group is in `family`, which grows by their pids."""
    ids: dict[psutil.Process, set[int]] = {}
    for pid in psutil.pids():
        try:
            process = psutil.Process(pid)
            if process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE:
                ids[process] = {pid, process.ppid(), os.getsid(pid), os.getpgid(pid)}
        except (psutil.Error, OSError):
            continue  # it has just ended
    found: set[psutil.Process] = set()
    while more := {process for process in ids if ids[process] & family} - found:
        found |= more
        family |= {process.pid for process in more}
    return found


def _signal(process: psutil.Process, uid: int, number: signal.Signals) -> None:
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        # Looked at only now that the descriptor is there: had the pid gone to another process, it would show.
        if process.is_running() and process.uids().real == uid:
            signal.pidfd_send_signal(pidfd, number)
    except (psutil.Error, OSError):
        pass  # it has just ended
    finally:
        os.close(pidfd)
