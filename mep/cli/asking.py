"""Asks a running manager: its worker how it is, and itself to read its profile again.

What comes back is read as a stranger's: who answers for a manager is a process that handles what strangers sent.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep.processes import control_protocol, named_sockets, status_protocol
from mep.processes.control_protocol import Kind, Outcome, Request
from mep.processes.printable import escaped

RELOAD_TIMEOUT = 110.0
"""Seconds that `reload` waits: less than the unit allows a reload (TimeoutStartSec), so that the words are ours."""
_PAUSE = 0.1
_NUMBER = 1


class NoAnswer(Exception):
    """The manager cannot be asked, has ended, or said nothing for long. The text says which."""


@dataclass(frozen=True)
class Reloaded:
    """taken: whether the edited profile is in force. text: what else is to be said; why not, if it is not."""

    taken: bool
    text: str


def reload(run_directory: Path, within: float = RELOAD_TIMEOUT) -> Reloaded:
    """Has the manager read its profile again, and waits for what it says.

    Raises:
        NoAnswer: see there.
        PermissionError: only root may.
    """
    request = control_protocol.write_request(Request(Kind.RELOAD, _NUMBER))
    try:
        with named_sockets.connected(run_directory, control_protocol.NAME, socket.SOCK_SEQPACKET, within) as connection:
            connection.sendall(request)
            said = connection.recv(control_protocol.MOST_ANSWER)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoAnswer(
            "the manager takes no requests: it is still starting, try again when it is connected; or it is of an "
            "earlier version, restart it (one of those reads its profile again at a SIGHUP, and says in its log what "
            "came of it)"
        ) from None
    except TimeoutError:
        raise NoAnswer(f"the manager has not answered for {within:g} s; see its log") from None
    except ConnectionError:
        said = b""
    if not said:
        raise NoAnswer("the manager ended before it had read the profile; see its log")
    try:
        outcome, text = control_protocol.read_answer(said, _NUMBER)
    except ValueError as e:
        raise NoAnswer(f"the manager gives an answer that cannot be understood: {e}; restart it") from None
    if outcome is Outcome.SENSELESS:
        raise NoAnswer(f"the manager does not understand the request: {_shown(text)}; restart it")
    return Reloaded(outcome is Outcome.DONE, _shown(text))


def status(run_directory: Path, within: float = status_protocol.TIME) -> dict[str, Any] | None:
    """What the manager says of itself; None while it has no socket: it begins, or ends.

    A worker that is lost meanwhile is replaced, and the next one is asked.

    Raises:
        NoAnswer: it does not answer within that many seconds, or not in a way that can be understood.
        PermissionError: only root may ask.
    """
    deadline, said = time.monotonic() + within, b""
    try:
        while not (said := _ask_once(run_directory, deadline)):
            time.sleep(_PAUSE)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except TimeoutError:
        raise NoAnswer(f"does not answer within {within:g} s") from None
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("line"), str):
        raise NoAnswer("gives an answer that cannot be understood")
    return {**answer, "line": _shown(answer["line"])}


def _ask_once(run_directory: Path, deadline: float) -> bytes:
    """The answer; nothing when the connection ended without one. Raises OSError; TimeoutError, when time is over."""
    kind, said = socket.SOCK_STREAM, b""
    with named_sockets.connected(run_directory, status_protocol.NAME, kind, _left(deadline)) as connection:
        try:
            connection.sendall(json.dumps(status_protocol.QUESTION).encode() + b"\n")
            while len(said) < status_protocol.MOST_ANSWER:
                connection.settimeout(_left(deadline))
                more = connection.recv(status_protocol.MOST_ANSWER)
                if not more:
                    break
                said += more
        except ConnectionError:
            return b""
    return said if said.endswith(b"\n") else b""


def _left(deadline: float) -> float:
    """Seconds. Raises TimeoutError when there are none."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _shown(text: str) -> str:
    return "\n".join(escaped(line) for line in text.split("\n"))
