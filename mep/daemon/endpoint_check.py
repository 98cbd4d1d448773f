"""Asks the user endpoint's own program whether it could start with a configuration: `mep-uep --check`.

Its words are the ones that a user would get; here the admin gets them, before the configuration is in force. The
program runs as the account of the helpers, with the environment that a user endpoint would have, and starts nothing.
Another program than ours is not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mep.processes.bounded_output import BoundedOutput
from mep.processes.helper import MARK
from mep.processes.printable import escaped
from mep.processes.sealed_file import sealed
from mep.processes.supervised import NotStarted, SupervisedProcess
from mep.processes.time_limit import within
from mep.profile.programs import is_our_user_endpoint
from mep.request.account import Account
from mep.request.launch_spec import LaunchSpec

TIME_LIMIT = 60.0
"""Seconds for all configurations. Python packages may lie on a slow file system."""
MAX_OUTPUT = 4 * 2**20
LIMITS = {resource.RLIMIT_CPU: 60, resource.RLIMIT_FSIZE: 64 << 20, resource.RLIMIT_CORE: 0}


@dataclass(frozen=True)
class Verdict:
    """problem: what keeps a user endpoint from starting, or None. notes: what else an admin should know.

    script: what it would submit to a batch system, if that was asked for.
    """

    problem: str | None
    notes: tuple[str, ...] = ()
    script: str = ""


class NotAsked(Exception):
    """The program did not answer; the text says why. Nothing is known of the configurations then."""


async def ask(
    command: Sequence[str],
    environment: Mapping[str, str],
    configurations: Sequence[str],
    account: Account,
    *,
    scripts: bool = False,
) -> list[Verdict]:
    """What the program of `command` says of each configuration. Raises NotAsked."""
    if not is_our_user_endpoint(command):
        raise NotAsked("uep_command is not mep-uep: what it thinks of the configuration is known only when it starts")
    argv = [*command, "--check", *(["--scripts"] if scripts else [])]
    with BoundedOutput(MAX_OUTPUT) as out, BoundedOutput(MAX_OUTPUT) as err:
        process = await _start(argv, environment, json.dumps(configurations), account, out, err)
        try:
            over: set[asyncio.Future[Any]] = {process.ended, out.overflow}
            done, _ = await asyncio.wait(over, timeout=TIME_LIMIT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await process.end()
        if not done:
            raise NotAsked(f"{command[0]} --check took longer than {TIME_LIMIT:g} s")
        if process.ended.result() != os.EX_OK:
            said = escaped(err.rest().decode("utf-8", "replace").strip()[-300:])
            raise NotAsked(f"{command[0]} --check ended with status {process.ended.result()}: {said}")
        return _verdicts(command[0], out.rest(), len(configurations))


async def _start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    question: str,
    account: Account,
    out: BoundedOutput,
    err: BoundedOutput,
) -> SupervisedProcess:
    with contextlib.ExitStack() as stack:
        descriptor = sealed("configurations", question.encode())
        stack.callback(os.close, descriptor)
        stack.callback(out.started)
        stack.callback(err.started)
        spec = LaunchSpec(
            argv=tuple(argv),
            environment={**environment, MARK: "1"},
            username=account.name,
            uid=account.uid,
            gid=account.gid,
            groups=(account.gid,),
            directory="/",
            log=None,
            descriptors={0: descriptor, 1: out.writing, 2: err.writing},
            rlimits=LIMITS,
        )
        try:
            return await within(TIME_LIMIT, SupervisedProcess.start(spec))
        except asyncio.TimeoutError:
            raise NotAsked(f"{argv[0]} did not start within {TIME_LIMIT:g} s") from None
        except (NotStarted, OSError) as e:
            raise NotAsked(f"{argv[0]} cannot be started as account {account.name!r}: {e}") from None


def _verdicts(program: str, answer: bytes, expected: int) -> list[Verdict]:
    """Read as a stranger's words: what was configured may have made it say anything."""
    try:
        found = [_verdict(each) for each in json.loads(answer)]
    except (ValueError, TypeError, KeyError, RecursionError):
        found = []
    if len(found) != expected:
        raise NotAsked(f"{program} --check gave no answer that makes sense")
    return found


def _verdict(answer: Mapping[str, Any]) -> Verdict:
    problem = answer["problem"]
    lines = str(answer.get("script", "")).splitlines()
    return Verdict(
        problem=None if problem is None else escaped(str(problem)),
        notes=tuple(escaped(str(note)) for note in answer["notes"]),
        script="\n".join(map(escaped, lines)),
    )
