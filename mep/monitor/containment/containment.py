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
What the user endpoint itself has started may move there. Where the kernel has audit it is found all the same: by the
audit session, which came with the login uid and is inherited by whatever a process starts.

Without systemd there are limits for each process (`rlimits`), and `kill_tree` finds what belongs together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mep.monitor.containment import cgroups, unit_names, user_services
from mep.monitor.containment.limits import describe, differences, without_systemd
from mep.monitor.containment.process_tree import in_audit_session, kill_tree
from mep.monitor.containment.systemd import ContainmentError, Properties, Systemd, SystemdRefused
from mep.privileged import kernel
from mep.processes.process import Process
from mep.profile.sections.resources import Resources

STOP_TIMEOUT = 10.0
"""Seconds from SIGTERM to SIGKILL for what a user endpoint left behind."""

_INFINITY = 2**64 - 1
"""What systemd calls `infinity`."""
_PAUSE = 0.25
"""Seconds between looks at what is still there."""
_EXISTS, _UNKNOWN_PROPERTY = "UnitExists", "PropertyReadOnly"
"""What systemd calls its refusals."""


def available() -> bool:
    """Whether systemd manages this system (sd_booted(3)), and takes orders from us."""
    return Path("/run/systemd/system").is_dir() and kernel.is_root()


class Containment:
    """Of one profile. Belongs to the event loop; everything that waits has a timeout."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._prefix = unit_names.prefix(profile)
        self._systemd = Systemd() if available() else None

    def scope(self, name: str, pid: int) -> str | None:
        """The name of the scope into which `contain` puts a process. None without systemd."""
        return None if self._systemd is None else unit_names.scope(self._profile, name, pid)

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
        member_of = cgroups.cgroups_of(pid)
        main = member_of.get("name=systemd", member_of.get("", ""))
        if not main.endswith(f"/{slice_}/{scope}"):
            raise ContainmentError(f"{scope}: systemd has started it, but process {pid} is in {main or 'no cgroup'}")
        await _enforce(self._systemd, slice_, lambda: cgroups.cgroups_of(pid), resources)
        return scope

    async def kill(self, process: Process, unit: str | None, audit_session: int | None = None) -> None:
        """SIGKILL to a user endpoint and all that it started. `unit` is what `contain` returned.

        audit_session: the kernel's number for all that it started, wherever that is now: it may have left its scope.

        Harmless when all have ended. When systemd cannot be asked, raises ContainmentError after `kill_tree`.
        """
        if self._systemd is None or unit is None:
            await kill_tree(process, audit_session)
            return
        try:
            await self._systemd.kill(unit, signal.SIGKILL)
        except ContainmentError:
            await kill_tree(process, audit_session)
            raise
        if audit_session is not None and await in_audit_session(process.uid, audit_session):
            await kill_tree(process, audit_session)

    async def stop(self, process: Process, unit: str | None, audit_session: int | None = None) -> None:
        """Ends what a user endpoint left that has ended itself: SIGTERM, and SIGKILL after STOP_TIMEOUT.

        Does not wait for it, but for what has an audit session. Without a scope, and once something has left it,
        SIGKILL at once. Raises as `kill` does.
        """
        if self._systemd is None or unit is None:
            await kill_tree(process, audit_session)
            return
        try:
            await self._systemd.stop(unit)
        except ContainmentError:
            await kill_tree(process, audit_session)
            raise
        if audit_session is not None:
            await _until_gone(process, unit, audit_session)

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
            here = dict.fromkeys(cgroups.cgroups_of(os.getpid()), path)
            await _enforce(self._systemd, slice_, lambda: here, resources)
            version = await self._systemd.version()
        finally:
            with contextlib.suppress(ContainmentError):  # what came before says more
                await self._systemd.stop(slice_)
        said = f"{describe(resources)} per account, as read back" if resources else "no limits are set"
        return f"user endpoints run in scopes of systemd {version} below {self._prefix}.slice; {said}"

    def note(self) -> str:
        """What holds for some users only, for log and `mep check`; empty when there is nothing of the kind."""
        return "" if self._systemd is None else user_services.note()

    def close(self) -> None:
        """Closes the connection to systemd, if any. Scopes stay."""
        if self._systemd is not None:
            self._systemd.close()


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


async def _until_gone(process: Process, unit: str, audit_session: int) -> None:
    """Waits for the end of an audit session, and kills what is there of it once systemd's patience with its scope is
    over, or as soon as one has left that scope."""
    until = time.monotonic() + STOP_TIMEOUT
    while pids := await in_audit_session(process.uid, audit_session):
        if time.monotonic() > until or not all(_is_in(unit, pid) for pid in pids):
            await kill_tree(process, audit_session)
            return
        await asyncio.sleep(_PAUSE)


def _is_in(unit: str, pid: int) -> bool:
    """Whether a process is in a unit's control group. What has ended is not elsewhere."""
    try:
        return any(unit in path.split("/") for path in cgroups.cgroups_of(pid).values())
    except OSError:
        return True


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
        except SystemdRefused as refused:
            if refused.kind == _UNKNOWN_PROPERTY and len(wishes) > len(properties):
                wishes = properties
            elif refused.kind == _EXISTS and also:
                also = []  # a slice that goes right now is made anew without these, and then stays, empty, at its end
            elif refused.kind == _EXISTS:
                return None
            else:
                raise


async def _enforce(
    systemd: Systemd, slice_: str, members: Callable[[], Mapping[str, str]], resources: Resources
) -> None:
    """Sees to it that a slice has these limits and no others. Raises ContainmentError if the kernel says otherwise."""
    mounts = cgroups.mounts()
    if not differences(resources, cgroups.read_limits(slice_, members(), mounts)):
        return
    await systemd.change(slice_, _limits(resources))
    # With version 1, the first limit of a kind moves processes to a cgroup: so these are asked for again.
    wrong = differences(resources, cgroups.read_limits(slice_, members(), mounts))
    if wrong:
        raise ContainmentError(
            f"{slice_}: not in force: {'; '.join(wrong)}. Either the kernel offers systemd no such controller"
            " (cgroup_disable= on its command line?), or the key `resources` of config.yaml asks for more than it takes"
        )
