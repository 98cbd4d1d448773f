"""Runs the mapping programs of the site: each as an ordinary account, under tight limits, and beside the event loop.

    await MappingPrograms(look_up, account).run(["/opt/site/map", "-a"], b"...", None) -> b"..."   (its standard output)

In the monitor, and in commands of root. `identification` calls `ask` when the mapper wants a program asked, which it
names by its number alone.

A program never runs as root: it is launched like everything else that is not the monitor, as the account that its
document names (`run_as`), or as `mapping_account`. What its command executes must be root's
alone (`profile.command_trust`). It runs in its own session, in `/`, with a fixed environment.
Standard input is a file in memory, so a program that never reads cannot block us. When its main process has ended
nobody waits for children that it left behind: the whole group is killed.

A program may lie on a file system that hangs, where a process cannot even be killed. So each program is looked at by
one process at a time, and while one that was given up is still there, no other follows it: who asks is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from mep.monitor.stages.shared_runs import SharedRuns
from mep.processes import forked
from mep.processes.bounded_output import BoundedOutput
from mep.processes.helper import MARK
from mep.processes.printable import escaped, quoted
from mep.processes.sealed_file import sealed
from mep.processes.supervised import NotStarted, SupervisedProcess
from mep.profile import command_trust, programs
from mep.profile.errors import ConfigError
from mep.profile.mapping_documents import MappingProgram
from mep.request.account import Account
from mep.request.launch_spec import LaunchSpec
from mep.request.mapping_program import ProgramFailed, command_line
from mep.request.refusal import Refused

START_LIMIT = 20.0
"""Seconds until the program must run: it may lie on a slow file system, and the name service is asked."""
TIME_LIMIT = 5.0
"""Seconds from the start of the program to its end."""
GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL when a program is stopped, and then until its end is waited for no longer."""
MAX_STDOUT = 64 * 1024
MAX_STDERR = 8 * 1024
AT_ONCE = 4
"""Most programs that run at the same time."""
LIMITS = {
    resource.RLIMIT_CPU: 5,
    resource.RLIMIT_AS: 1 << 30,
    resource.RLIMIT_FSIZE: 64 << 20,
    resource.RLIMIT_CORE: 0,
}
"""Seconds of processor time, and bytes of memory, of a file and of a core file, for each process."""
ENVIRONMENT = {"PATH": programs.PATH, "LANG": "C.UTF-8", MARK: "1"}


class MappingPrograms:
    """Runs programs, AT_ONCE at a time, and one for the same question; others wait for their turn.

    look_up: finds an account by its name, or raises Refused. usual: what programs without `run_as` run as.
    """

    def __init__(self, look_up: Callable[[str], Awaitable[Account | None]], usual: Account) -> None:
        self._look_up = look_up
        self._usual = usual
        self._places = asyncio.Semaphore(AT_ONCE)
        self._runs = SharedRuns(self._answer)
        self._checks: dict[tuple[str, ...], asyncio.Future[None]] = {}
        self._stuck: dict[tuple[str, ...], asyncio.Future[Any]] = {}

    async def ask(self, program: MappingProgram, endpoint_id: str, question: bytes) -> bytes:
        """What the program answers to a question. endpoint_id: the manager's. Raises ProgramFailed, as `run`."""
        return await self.run(command_line(program.argv, endpoint_id), question, program.run_as)

    async def run(self, argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
        """The standard output of a successful run, which began after this was called.

        argv: begins with the program's absolute path. account: the name of what it runs as; None for the usual one.

        Raises:
            ProgramFailed: not trustworthy, not startable, failed, too slow, or too much output.
        """
        return await self._runs.ask((tuple(argv), stdin, account))

    async def _answer(self, question: tuple[tuple[str, ...], bytes, str | None]) -> bytes:
        command, stdin, account = question
        owner = self._usual if account is None else await self._owner(account)
        try:
            await self._trusted(command)
            async with self._places:
                self._refuse_if_stuck(command)
                return await self._run(command, stdin, owner)
        except ConfigError as e:
            raise ProgramFailed(f"{quoted(command[0])} cannot be trusted: {escaped(str(e))}") from None
        except OSError as e:
            raise ProgramFailed(f"{quoted(command[0])} cannot be run: {e.strerror or e}") from None

    async def _trusted(self, command: tuple[str, ...]) -> None:
        """Returns if the command is trusted. Those who ask while it is looked at share the answer.

        Raises:
            ConfigError: it is not.
            OSError: nobody could look.
            ProgramFailed: it lies where nothing answers.
        """
        self._refuse_if_stuck(command)
        check = self._checks.get(command)
        if check is None:
            check = self._checks[command] = asyncio.ensure_future(self._check(command))
            check.add_done_callback(functools.partial(self._checked, command))
        await asyncio.shield(check)

    async def _check(self, command: tuple[str, ...]) -> None:
        try:
            await forked.run(functools.partial(command_trust.check, command), START_LIMIT)
        except forked.GivenUp as e:
            self._note_stuck(command, e.ended)
            raise ProgramFailed(
                f"{quoted(command[0])} could not be looked at within {START_LIMIT:g} seconds: its file system does not"
                " answer"
            ) from None

    def _checked(self, command: tuple[str, ...], check: asyncio.Future[None]) -> None:
        del self._checks[command]
        if not check.cancelled():
            check.exception()  # whoever asked may be gone

    def _note_stuck(self, command: tuple[str, ...], ended: asyncio.Future[Any]) -> None:
        if not ended.done():
            self._stuck[command] = ended

    def _refuse_if_stuck(self, command: tuple[str, ...]) -> None:
        """Raises ProgramFailed while a process that was given up is still there."""
        ended = self._stuck.get(command)
        if ended is None:
            return
        if not ended.done():
            raise ProgramFailed(
                f"{quoted(command[0])} is not tried again before a process has ended that was given up: its file system"
                " does not answer"
            )
        del self._stuck[command]

    async def _owner(self, name: str) -> Account:
        try:
            found = await self._look_up(name)
        except Refused as e:
            raise ProgramFailed(f"`run_as` {quoted(name)}: {e.refusal.reason_for_admin}") from None
        if found is None or found.name != name:
            raise ProgramFailed(f"`run_as` {quoted(name)}: there is no account of that name on this system")
        return found

    async def _run(self, command: tuple[str, ...], stdin: bytes, owner: Account) -> bytes:
        with BoundedOutput(MAX_STDOUT) as out, BoundedOutput(MAX_STDERR) as err:
            with _spec(command, stdin, owner, out, err) as spec:
                process = await self._start(spec)
            over: set[asyncio.Future[Any]] = {process.ended, out.overflow, err.overflow}
            try:
                done, _ = await asyncio.wait(over, timeout=TIME_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _stop(process)
                self._note_stuck(command, process.ended)
            if not done:
                raise ProgramFailed(f"{quoted(command[0])} took longer than {TIME_LIMIT:g} seconds")
            return _answer(command[0], owner, process, out, err)

    async def _start(self, spec: LaunchSpec) -> SupervisedProcess:
        what = f"as account {spec.username!r}"
        program = quoted(spec.argv[0])
        try:
            return await SupervisedProcess.start(spec, START_LIMIT)
        except NotStarted as e:
            if e.given_up is not None:
                self._note_stuck(spec.argv, e.given_up.ended)
                raise ProgramFailed(f"{program} did not start {what} within {START_LIMIT:g} seconds") from None
            if e.step != "exec":
                raise ProgramFailed(f"{program} cannot be started {what}: {e}") from None
            raise ProgramFailed(
                f"{program} cannot be executed {what} ({e.reason}): the account must be able to read and execute it and"
                " its interpreter, and to enter their folders; open them, or name another account in `run_as`"
            ) from None


@contextlib.contextmanager
def _spec(
    argv: Sequence[str], stdin: bytes, owner: Account, out: BoundedOutput, err: BoundedOutput
) -> Iterator[LaunchSpec]:
    """The launch of the program; what only the program is to have open is closed afterwards."""
    question = sealed("identities", stdin)
    try:
        yield LaunchSpec(
            argv=tuple(argv),
            environment=ENVIRONMENT,
            username=owner.name,
            uid=owner.uid,
            gid=owner.gid,
            groups=owner.groups,
            directory="/",
            log=None,
            descriptors={0: question, 1: out.writing, 2: err.writing},
            rlimits=LIMITS,
        )
    finally:
        os.close(question)
        out.started()
        err.started()


async def _stop(process: SupervisedProcess) -> None:
    """Ends what has not ended: first in a way that lets it clean up."""
    if process.ended.done():
        return
    process.terminate()
    try:
        await process.wait(GRACE)
    finally:
        process.kill()
    await process.wait(GRACE)


def _answer(program: str, owner: Account, process: SupervisedProcess, out: BoundedOutput, err: BoundedOutput) -> bytes:
    """The standard output, if all went well."""
    name, answer, said = quoted(program), out.rest(), err.rest()
    if out.overflow.done() or err.overflow.done():
        raise ProgramFailed(f"{name} wrote more than {MAX_STDOUT} bytes, or {MAX_STDERR} to standard error")
    if not process.ended.done() or process.ended.result() != 0:
        status = process.ended.result() if process.ended.done() else "unknown"
        words = quoted(said.decode("utf-8", "replace").strip(), 300)
        raise ProgramFailed(f"{name} ended with status {status} as account {owner.name!r} and said {words}")
    return answer
