"""Asks a running manager: its worker how it is (the API, HTTP), and itself to act: to reload, to obey an order.

What comes back is read as a stranger's: who answers for a manager is a process that handles what strangers sent.
"""

from __future__ import annotations

import io
import json
import socket
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mep.processes import control_protocol, named_sockets, status_protocol
from mep.processes.control_protocol import Kind, Outcome, Request
from mep.processes.printable import escaped

RELOAD_TIMEOUT = 110.0
"""Seconds that `reload` waits: less than the unit allows a reload (TimeoutStartSec), so that the words are ours."""
_PAUSE = 0.1
_CHUNK = 2**16
_NUMBER = 1


class NoAnswer(Exception):
    """The manager cannot be asked, has ended, or said nothing for long. The text says which."""


@dataclass(frozen=True)
class Obeyed:
    """kept: whether the order outlives a restart. done: what the manager says of it."""

    kept: bool
    done: dict[str, Any]


class NotObeyed(Exception):
    """The manager does not carry out an order. The text is its reason."""


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
    outcome, text = _act(run_directory, Request(Kind.RELOAD, _NUMBER), within)
    return Reloaded(outcome is Outcome.DONE, _shown(text))


def order(run_directory: Path, kind: Kind, target: str, reason: str, until: int, within: float) -> Obeyed:
    """Gives the manager an order, and waits until that has been carried out.

    Raises:
        NotObeyed: see there.
        NoAnswer: see there.
        ValueError: a text of it is too long.
        PermissionError: only root may.
    """
    outcome, text = _act(run_directory, Request(kind, _NUMBER, target, reason, until), within)
    try:
        done = json.loads(text)
    except (ValueError, RecursionError):
        done = None
    if not isinstance(done, dict):
        raise NoAnswer("the manager gives an answer that cannot be understood; restart it")
    if outcome is Outcome.REFUSED:
        raise NotObeyed(_shown(str(done.get("error"))))
    return Obeyed(outcome is Outcome.DONE, done)


def _act(run_directory: Path, asked: Request, within: float) -> tuple[Outcome, str]:
    """The answer to a request. Raises NoAnswer, PermissionError; ValueError: it cannot be written."""
    request = control_protocol.write_request(asked)
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
        raise NoAnswer("the manager ended before it had answered; see its log")
    try:
        outcome, text = control_protocol.read_answer(said, _NUMBER)
    except ValueError as e:
        raise NoAnswer(f"the manager gives an answer that cannot be understood: {e}; restart it") from None
    if outcome is Outcome.SENSELESS:
        raise NoAnswer(f"the manager does not understand the request: {_shown(text)}; restart it")
    return outcome, text


def status(run_directory: Path, within: float = status_protocol.TIME) -> dict[str, Any] | None:
    """What the manager says of itself; None while it has no socket. Raises as `get`."""
    answer = get(run_directory, "/v1/status", within)
    if answer is not None and not isinstance(answer.get("line"), str):
        raise NoAnswer("gives an answer that cannot be understood")
    return answer


def user_endpoints(run_directory: Path) -> list[dict[str, Any]] | None:
    """The user endpoints that run; None while the manager has no socket. Raises as `get`."""
    return _list(run_directory, "user_endpoints", "/v1/user-endpoints")


def held_back(run_directory: Path) -> list[dict[str, Any]] | None:
    """Who gets no new user endpoint now. As `user_endpoints`."""
    return _list(run_directory, "held_back", "/v1/held-back")


def events(run_directory: Path, **wanted: str) -> list[dict[str, Any]] | None:
    """The newest decisions, the newest first, of those that have these values. As `user_endpoints`."""
    return _list(run_directory, "events", f"/v1/events?{urlencode({'limit': '1000', **wanted})}")


def _list(run_directory: Path, name: str, target: str) -> list[dict[str, Any]] | None:
    answer = get(run_directory, target)
    if answer is None:
        return None
    listed = answer.get(name)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise NoAnswer("gives an answer that cannot be understood")
    return listed


def get(run_directory: Path, target: str, within: float = status_protocol.TIME) -> dict[str, Any] | None:
    """What the API of the manager answers, its texts made printable; None while it has no socket: it begins, or ends.

    A worker that is lost meanwhile is replaced, and the next one is asked.

    Raises:
        NoAnswer: it does not answer within that many seconds, or not in a way that can be understood.
        PermissionError: who asks may not.
    """
    deadline, said = time.monotonic() + within, b""
    try:
        while not (said := _ask_once(run_directory, target, deadline)):
            time.sleep(_PAUSE)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except TimeoutError:
        raise NoAnswer(f"does not answer within {within:g} s") from None
    try:
        response = HTTPResponse(_Received(said))  # type: ignore[arg-type]  # takes no more of a socket
        response.begin()
        answer = _clean(json.loads(response.read()))
    except (HTTPException, ValueError, RecursionError, OSError):
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswer("gives an answer that cannot be understood")
    if response.status != HTTPStatus.OK:
        raise NoAnswer(f"does not answer that: {answer.get('error')}")
    return answer


class _Received:
    """A connection from which all has been read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def _clean(said: Any) -> Any:
    """The same, with texts that steer no terminal."""
    if isinstance(said, dict):
        return {escaped(name): _clean(value) for name, value in said.items()}
    if isinstance(said, list):
        return [_clean(value) for value in said]
    return _shown(said) if isinstance(said, str) else said


def _ask_once(run_directory: Path, target: str, deadline: float) -> bytes:
    """All that came; nothing when the connection ended without an answer. Raises OSError; TimeoutError at the end."""
    kind, said = socket.SOCK_STREAM, bytearray()
    with named_sockets.connected(run_directory, status_protocol.NAME, kind, _left(deadline)) as connection:
        try:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            while len(said) < status_protocol.MOST_ANSWER:
                connection.settimeout(_left(deadline))
                more = connection.recv(_CHUNK)
                if not more:
                    break
                said += more
        except ConnectionError:
            return b""
    return bytes(said)


def _left(deadline: float) -> float:
    """Seconds. Raises TimeoutError when there are none."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _shown(text: str) -> str:
    return "\n".join(escaped(line) for line in text.split("\n"))
