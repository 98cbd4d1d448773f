"""A user endpoint as the monitor knows it, in memory: `UserEndpoint`, and how it ended: `ExitReport`.

`spawn` makes one for each program that it starts, `record` for each that an earlier manager left; `table` keeps them.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

from mep.monitor.containment.limits_met import Watched
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.lifecycle import State
from mep.processes.process import Process
from mep.request.account import Account
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint


@dataclass(frozen=True)
class ExitReport:
    """How a user endpoint ended.

    ending: "exit status 3" or "signal 9 (SIGKILL)". clean: it meant to end. seconds: since its start.
    before_check_in: known to have ended before its first heartbeat. useless: known to have been of no use.
    cpu_seconds, peak_memory (KiB): its own and its reaped children's; None for one that an earlier manager started.
    """

    ending: str
    clean: bool
    seconds: float
    before_check_in: bool = False
    useless: bool = False
    cpu_seconds: float | None = None
    peak_memory: int | None = None


NOT_ENDED = ExitReport("has not ended", clean=False, seconds=0.0)


@dataclass
class UserEndpoint:
    """A user endpoint that runs, or has ended while nobody watched.

    command: the newest start command for it, its credentials sealed with its key.
    folder: its folder under /run.
    pidfd, pipe, audit: descriptors, None when closed.
    started: monotonic seconds, which go on from one manager to the next.
    executed: its program runs; before that, its start command has not been acked.
    remembered_until: monotonic seconds; until then the newest command that came while it ran is remembered.
    checked_in_after: seconds from start to first heartbeat; None until then, or when its program does not say.
    scope: the unit of systemd that holds it and all that it starts; None without systemd.
    audit_session: the kernel's number for it and all that it starts; None where the kernel gave it none of its own.
    worked: it has delivered a result. configuration, functions: of the plan that it was started by; None: not known.
    said: the words that it has said to this manager. reason, detail: why it ends, for its user and the admin, and what
    only the admin gets; its own last words, and at its end what the manager knows of it.
    jobs: what it says of batch jobs from which no worker comes. jobs_told: how often it has said so to this manager.
    figures: what it says of its tasks and engine, as it came. figures_at: when (monotonic seconds); figures_early: how
    often sooner than it may.
    ending: why the manager ends it, for its user, once it does.
    refusal: what its newest command is told after its end, which would start it again otherwise; of one that is killed.
    forgotten: set when it has ended, and the table has it no more.
    limits: the limits that it may meet. killed_for: why the manager kills it.
    adopted: an earlier manager started it, so nobody is told its exit status; its word `stopped` stands for it.
    exit: how it ended, once it has.
    """

    command: StartEndpoint
    account: Account
    process: Process
    folder: Path
    credentials: CredentialFile
    pidfd: int | None
    pipe: int | None
    started: float
    audit: int | None = None
    executed: bool = False
    scope: str | None = None
    audit_session: int | None = None
    worked: bool = False
    configuration: str = ""
    functions: str | None = ""
    state: State = State.STARTING
    remembered_until: float = 0.0
    checked_in_after: float | None = None
    said: set[bytes] = field(default_factory=set)
    reason: str = ""
    detail: str = ""
    jobs: str = ""
    jobs_told: int = 0
    figures: bytes = field(default=b"", repr=False)
    figures_at: float = 0.0
    figures_early: int = 0
    ending: str = ""
    refusal: Refusal | None = None
    forgotten: asyncio.Event = field(default_factory=asyncio.Event)
    limits: Watched = field(default_factory=Watched)
    killed_for: str = ""
    adopted: bool = False
    exit: ExitReport = NOT_ENDED

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        return self.process.pid

    def facts(self) -> dict[str, object]:
        """What lines of the audit trail say of it."""
        return {
            "configuration": self.configuration,
            "endpoint": self.name,
            "account": self.account.name,
            "uid": self.account.uid,
            "pid": self.pid,
        }

    def close(self) -> None:
        """Closes the descriptors; nothing of it is heard any more."""
        for descriptor in (self.pidfd, self.pipe, self.audit):
            if descriptor is not None:
                os.close(descriptor)
        self.pidfd = self.pipe = self.audit = None
