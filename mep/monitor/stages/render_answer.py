"""What a child of the render server has answered, read in the monitor as a stranger's words.

The child may have been taken over by what it read: anything may come. Every text but the server's own reasons is
written here.
"""

from __future__ import annotations

import os
import signal

from mep.monitor.stages.render_server import MAX_ANSWER, Answer
from mep.processes.printable import escaped
from mep.processes.render_protocol import CPU, MAX_REASON, MEMORY, OUT_OF_MEMORY, WALL
from mep.request.refusal import Refused

UNAVAILABLE = "This endpoint cannot start user endpoints at the moment; please tell its administrators."


def read(answer: Answer) -> str:
    """The configuration.

    Raises:
        Refused: stage `options` or `template`; the child says so, has reached a limit, or makes no sense.
    """
    if answer.exit_code == os.EX_TEMPFAIL:
        raise Refused("template", "the render server could not start a process; see its limits", UNAVAILABLE)
    limit = _limit(answer)
    if limit is not None:
        reason = f"Your user_endpoint_config is the reason: processing it {limit}."
        raise Refused("options", f"user_endpoint_config: processing it {limit}", reason)
    match answer.data.decode(errors="replace").split("\0", 3):
        case ["config", *text]:
            return "\0".join(text)
        case ["refused", ("options" | "template") as stage, admin, user]:
            raise Refused(stage, escaped(admin[:MAX_REASON]), escaped(user[:MAX_REASON]))
    reason = "Your user_endpoint_config is the reason: processing it failed."
    raise Refused("options", "user_endpoint_config: the render server's child answered with garbage", reason)


def _limit(answer: Answer) -> str | None:
    """Which limit a child reached; None for a child that ended well."""
    if answer.late:
        return f"took more than {WALL:g} s"
    if len(answer.data) > MAX_ANSWER:
        return f"gave more output than {MAX_ANSWER} bytes"
    if answer.exit_code == -signal.SIGXCPU:
        return f"took more than {CPU} s of processor time"
    if answer.exit_code in (OUT_OF_MEMORY, -signal.SIGABRT):
        return f"took more than {MEMORY // 2**20} MiB of memory"
    if answer.exit_code < 0:
        return f"was ended by signal {-answer.exit_code}"
    return None if answer.exit_code == 0 else f"failed (exit code {answer.exit_code})"
