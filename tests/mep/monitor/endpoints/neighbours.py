"""What stands around the table in its tests: a containment without systemd, a listener that writes down what it hears,
and user endpoints of an earlier manager: real processes, on record in a run folder."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.waiting import PATIENCE
from mep.monitor.containment.process_tree import kill_tree
from mep.monitor.endpoints import record, run_folder
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.user_endpoint import ExitReport, UserEndpoint
from mep.processes.process import Process
from mep.profile.sections.resources import Resources
from mep.request.account import Account
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint
from tests.mep.credentials import with_sealed


class NoScopes:
    """Containment where there is no systemd. `refuses`: raised instead of containing."""

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.cleared: list[int] = []

    def scope(self, name: str, pid: int) -> str | None:
        return None

    async def contain(self, pid: int, name: str, uid: int, resources: Resources) -> str | None:
        if self.refuses is not None:
            raise self.refuses
        return None

    async def kill(self, process: Process, unit: str | None, audit_session: int | None) -> None:
        await kill_tree(process, audit_session)

    async def stop(self, process: Process, unit: str | None, audit_session: int | None) -> None:
        self.cleared.append(process.pid)


@dataclass
class Heard:
    """A listener. Each list has pids, or what was told with them, in order."""

    refuses: Refused | None = None
    unaudited: str | None = None
    held_: list[int] = field(default_factory=list)
    checked_in_: list[int] = field(default_factory=list)
    working_: list[int] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    exits: list[tuple[int, ExitReport]] = field(default_factory=list)
    deaths: list[tuple[int, ExitReport]] = field(default_factory=list)
    revived: list[tuple[int, StartEndpoint]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    async def held(self, endpoint: UserEndpoint) -> None:
        self.held_.append(endpoint.pid)
        if self.refuses is not None:
            raise self.refuses

    def checked_in(self, endpoint: UserEndpoint) -> None:
        self.checked_in_.append(endpoint.pid)

    def working(self, endpoint: UserEndpoint) -> None:
        self.working_.append(endpoint.pid)

    async def task_records(self, endpoint: UserEndpoint, records: list[bytes]) -> str | None:
        self.records += records
        return self.unaudited

    def exited(self, endpoint: UserEndpoint, report: ExitReport) -> None:
        self.exits.append((endpoint.pid, report))

    def died(self, endpoint: UserEndpoint, report: ExitReport) -> None:
        self.deaths.append((endpoint.pid, report))

    def revive(self, endpoint: UserEndpoint) -> None:
        self.revived.append((endpoint.pid, endpoint.command))


class Earlier:
    """User endpoints that an earlier manager has started, with their processes: children of this one."""

    def __init__(self, run_directory: Path, account: Account) -> None:
        self.run_directory = run_directory
        self._account = account
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._pipes: dict[str, int] = {}
        self._audits: dict[str, int] = {}

    def start(
        self,
        command: StartEndpoint,
        state: State = State.RUNNING,
        *,
        remembered_for: float = 0.0,
        executed: bool = True,
        audited: bool = False,
        program: tuple[str, ...] = ("/bin/sleep", "3600"),
        scope: str | None = None,
        functions: str | None = "",
    ) -> int:
        """Its pid. remembered_for: seconds for which its newest command is remembered from now on."""
        folder = self.run_directory / command.name
        command = with_sealed(command)
        pipe, audit = run_folder.make(folder, audited=audited)
        self._close(command.name)
        self._pipes[command.name] = run_folder.pipe_writing_end(folder)
        if audited:
            self._audits[command.name] = run_folder.audit_writing_end(folder)
        process = subprocess.Popen(program, start_new_session=True)
        self._processes[process.pid] = process
        now = time.monotonic()
        endpoint = UserEndpoint(
            command=command,
            account=self._account,
            process=Process.of(process.pid, os.getuid()),
            folder=folder,
            credentials=CredentialFile.create(folder / "credentials", command.credentials),
            pidfd=None,
            pipe=pipe,
            audit=audit,
            started=now,
            executed=executed,
            scope=scope,
            functions=functions,
            state=state,
            remembered_until=now + remembered_for if remembered_for else 0.0,
        )
        record.save(endpoint)
        endpoint.close()
        return process.pid

    def say(self, name: str, word: bytes) -> None:
        os.write(self._pipes[name], word + b"\n")

    def audit(self, name: str, record: bytes | None) -> None:
        """Writes a record of a task; with None, closes the pipe for them."""
        if record is None:
            os.close(self._audits.pop(name))
        else:
            os.write(self._audits[name], record)

    def kill(self, pid: int) -> None:
        """Returns when it has ended, and been reaped by us: its parent."""
        self._processes[pid].kill()
        self._processes[pid].wait(PATIENCE)

    def wait(self, pid: int) -> int:
        """Its exit code; waits for its end."""
        return self._processes[pid].wait(PATIENCE)

    def runs(self, pid: int) -> bool:
        return self._processes[pid].poll() is None

    def close(self) -> None:
        for pid in self._processes:
            self.kill(pid)
        for name in list(self._pipes):
            self._close(name)

    def _close(self, name: str) -> None:
        for descriptors in (self._pipes, self._audits):
            if name in descriptors:
                os.close(descriptors.pop(name))
